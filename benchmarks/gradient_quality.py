"""Is the gradient of windows any good, and does a better sampling make it so?

    trained, frozen               the report's figures 4 and 5: one pretrained backbone, all of it trained or only its
                                  last stage
    bilinear, mipmap, linearized  one model seen through three glimpse generators, same weights; linearized computes
                                  bilinear's glimpses to the last bit, so that nothing but the gradient differs

Digit scenes, the paper's localization, half of the windows in training drawn at random: without that the model learns
to ignore what windows show, and there is no gradient to measure. Sweeps around random windows, and around true ones: of
those every sweep passes over the digit. What the numbers mean: ``glimpsenet/inspection/quality.py``.

Command: ``python benchmarks/gradient_quality.py [--steps 800] [--images 200]``; trains three models of a few minutes
each into runs/gradient-quality, or goes on with those that are there.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from glimpsenet.config import Config
from glimpsenet.data.loading import InOrder, create_loader, open_data
from glimpsenet.evaluation.accuracy import evaluate_all
from glimpsenet.files import write_json
from glimpsenet.inspection.figures import save_figure
from glimpsenet.inspection.quality import (
    GradientQuality,
    compare_qualities,
    format_table,
    gradient_quality,
    with_generator,
)
from glimpsenet.models.glimpse import BilinearGlimpses, GlimpseGenerator, LinearizedGlimpses, MipmapGlimpses
from glimpsenet.models.policies import OracleGlimpses, Policy, RandomGlimpses
from glimpsenet.provenance import provenance
from glimpsenet.recipes import digits
from glimpsenet.reproduction.rows import Setting, pretraining_config
from glimpsenet.runs import Run, load_run
from glimpsenet.tables import print_table
from glimpsenet.training.fit import fit

RESULTS = Path(__file__).parent / "results"
RUNS = Path("runs/gradient-quality")
GENERATORS: dict[str, type[GlimpseGenerator]] = {
    "bilinear": BilinearGlimpses,
    "mipmap": MipmapGlimpses,
    "linearized": LinearizedGlimpses,
}


def train(steps: int) -> dict[str, Run]:
    """The three models, by name."""
    base = digits()
    training = replace(
        base.training, max_steps=steps, objective="pathwise", random_until=0.0, diversity=0.5, diversity_until=1.0
    )
    model = replace(base.model, localization="linear", even_attention=False, backbone_weights=_pretrain())
    configs = {
        "trained": replace(base, model=model, training=training),
        "frozen": replace(base, model=replace(model, freeze_backbone=True), training=training),
        "trained on bilinear": replace(base, model=replace(model, sampling="bilinear"), training=training),
    }
    return {name: _run(config, RUNS / name.replace(" ", "-")) for name, config in configs.items()}


def _run(config: Config, folder: Path) -> Run:
    fit(config, folder, resume=True, device="cpu")
    return load_run(folder)


def _pretrain() -> Path:
    """Weights of the backbone from single digits, as the pretrained rows of ``glimpsenet reproduce`` have it."""
    weights = RUNS / "backbone.safetensors"
    if not weights.exists():
        net = _run(pretraining_config(Setting()), RUNS / "pretraining").model.backbone.net
        safetensors.torch.save_file({key: value.contiguous() for key, value in net.state_dict().items()}, weights)
    return weights


def measure(models: dict[str, Run], images: int, points: int) -> dict[str, dict[str, GradientQuality]]:
    """Around which windows -> model and generator -> quality."""
    results: dict[str, dict[str, GradientQuality]] = {"random": {}, "true": {}}
    for name, run in models.items():
        scale_range, own = run.config.model.scale_range, run.config.model.sampling
        scenes = open_data(run.config).val
        samples = [scenes[0, index] for index in range(images)]
        pairs = [(sample.image, sample.label) for sample in samples if sample.image is not None]
        for generator in (own,) if name == "frozen" else GENERATORS:
            model = with_generator(run.model, GENERATORS[generator](run.model.generator.glimpse_size))
            policies: dict[str, Policy | list[Policy]] = {
                "random": RandomGlimpses(scale_range, seed=0),
                "true": [OracleGlimpses(scale_range, sample.box[None]) for sample in samples],
            }
            for around, policy in policies.items():
                label = name if generator == own else f"{name}, seen {generator}"
                results[around][label] = gradient_quality(
                    model, pairs, points=points, scale_range=scale_range, policy=policy
                )
                print(f"measured {label} around {around} windows", flush=True)
    return results


def accuracies(run: Run) -> dict[str, Any]:
    """After the last glimpse, by who looks."""
    splits = open_data(run.config, run.classes, run.channels)
    result = evaluate_all(
        run.model,
        create_loader(splits.val, InOrder(len(splits.val)), 64),
        has_boxes=True,
        scale_range=run.config.model.scale_range,
        image_size=run.config.model.image_size,
        classes=run.classes,
    )
    return {policy: values["accuracy"][-1] for policy, values in result["policies"].items()}


def main() -> None:
    """Train, measure, print tables, write results/gradient-quality.json and pictures beside the runs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--points", type=int, default=100)
    arguments = parser.parse_args()
    models = train(arguments.steps)
    results = measure(models, arguments.images, arguments.points)
    for around, named in results.items():
        head, *rows = format_table(named)
        print_table(f"around {around} windows, 95% intervals over images", head, rows)
        save_figure(compare_qualities(named), RUNS / f"quality-{around}.png")
    written = {
        **provenance(torch.device("cpu"), [digits().seed]),
        **vars(arguments),
        "accuracy": {name: accuracies(run) for name, run in models.items()},
        "quality": {
            around: {name: quality.to_dict() for name, quality in named.items()} for around, named in results.items()
        },
    }
    write_json(RESULTS / "gradient-quality.json", written)


if __name__ == "__main__":
    main()
