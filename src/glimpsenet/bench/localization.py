"""Compare policy-learning methods, trained on the same task.

    gap closed = (learned - random) / (oracle - random)

with the same weights for all three: the part of the possible gain that a policy achieves. Each method is the task's
recipe with something changed; ``mgnet`` and ``oracle`` bound the others from below and above.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from glimpsenet.bench.contenders import FeatureMapConfig, GuidanceConfig, ListwiseConfig, OracleConfig, PPOConfig
from glimpsenet.config import Config
from glimpsenet.errors import SettingError
from glimpsenet.files import write_json
from glimpsenet.models.config import AttentionConfig, BilinearConfig, LinearizedConfig, MeanConfig
from glimpsenet.policies.config import LinearConfig, SpatiotemporalConfig
from glimpsenet.provenance import common_machine
from glimpsenet.recipes import with_papers_localization
from glimpsenet.training.config import (
    BoxesConfig,
    PathwiseConfig,
    PolicyGradientConfig,
    RewardName,
    ValueMapConfig,
)
from glimpsenet.training.series import Record, curve_of, mean_curve, train_series

BEST, REFERENCE, LIKE_FOR_LIKE, BOUND = "best", "mgnet", "pathwise-mipmap", "oracle"
"""Ours; all of MGNet; ours with MGNet's localization; and the bound with true boxes."""
WORTH_TELLING = 0.01
"""Smallest gain in accuracy to divide by."""


def change(config: Config, *, model: Mapping[str, Any] | None = None, **training: Any) -> Config:
    """``config`` with some settings of the model and of the training changed."""
    return replace(config, model=replace(config.model, **(model or {})), training=replace(config.training, **training))


def _mgnet(config: Config) -> Config:
    return change(with_papers_localization(config), model={"sampling": BilinearConfig(), "batch_norm": "shared"})


def _pathwise(config: Config, **penalties: Any) -> Config:
    return change(with_papers_localization(config), objective=PathwiseConfig(**penalties))


def _spatiotemporal(config: Config) -> Config:
    return change(config, model={"policy": SpatiotemporalConfig(layer=config.model.policy.layers[0])})


def _tokens(config: Config, **settings: Any) -> Config:
    return change(config, model={"policy": replace(config.model.policy, **settings)})


def _rewarded(config: Config, reward: RewardName) -> Config:
    return change(config, objective=ValueMapConfig(reward=reward))


METHODS: dict[str, tuple[Callable[[Config], Config], str]] = {
    BEST: (lambda c: c, "the recipe as it is: token policy, value map"),
    REFERENCE: (_mgnet, "MGNet: linear, pathwise, bilinear, shared norms"),
    BOUND: (lambda c: change(c, objective=OracleConfig()), "trained and evaluated on the boxes: the bound"),
    "mgnet-separate-norms": (lambda c: change(_mgnet(c), model={"batch_norm": "separate"}), "mgnet, separate norms"),
    LIKE_FOR_LIKE: (with_papers_localization, "the recipe with MGNet's localization (separate norms, anti-aliased)"),
    "pathwise-linearized": (
        lambda c: change(with_papers_localization(c), model={"sampling": LinearizedConfig()}),
        "mgnet, separate norms, linearized sampling",
    ),
    "spatiotemporal": (
        lambda c: change(with_papers_localization(c), model={"policy": _spatiotemporal(c).model.policy}),
        "the report's attention over tokens, pathwise, anti-aliased",
    ),
    "scale-penalty": (lambda c: _pathwise(c, scale_penalty=5.0), "pathwise-mipmap, large windows cost"),
    "overlap-penalty": (lambda c: _pathwise(c, overlap_penalty=5.0), "pathwise-mipmap, overlapping windows cost"),
    "large-to-small": (lambda c: _pathwise(c, large_until=0.5), "pathwise-mipmap, windows shrink over half the run"),
    "auxiliary-decay": (
        lambda c: change(with_papers_localization(c), auxiliary_decay=True),
        "pathwise-mipmap, the auxiliary loss fades",
    ),
    "dynamic-rescaling": (
        lambda c: _pathwise(c, gradient_share=0.1),
        "pathwise-mipmap, its gradient a tenth of the others'",
    ),
    "guidance": (
        lambda c: change(with_papers_localization(c), objective=GuidanceConfig()),
        "linear network, told the best of four random windows a step",
    ),
    "ram": (
        lambda c: change(c, model={"policy": LinearConfig(noise=0.5)}, objective=PolicyGradientConfig()),
        "Gaussian around the linear network, policy gradient",
    ),
    "policy-gradient": (
        lambda c: change(c, objective=PolicyGradientConfig()),
        "token policy, REINFORCE with a learned baseline",
    ),
    "ppo": (lambda c: change(c, objective=PPOConfig()), "token policy, clipped policy gradient, two passes"),
    "listwise": (
        lambda c: change(c, objective=ListwiseConfig()),
        "token policy, four candidates a step, the best is looked at",
    ),
    "feature-map": (
        lambda c: change(_spatiotemporal(c), objective=FeatureMapConfig()),
        "spatiotemporal policy moved over the first feature map",
    ),
    "boxes": (lambda c: change(c, objective=BoxesConfig()), "token policy supervised by boxes"),
    "without-warm-up": (lambda c: change(c, random_until=0.0), "best without random windows at first"),
    "without-diversity": (lambda c: change(c, diversity=0.0), "best without random windows later"),
    "without-uniform-attention": (
        lambda c: change(c, model={"fusion": AttentionConfig()}),
        "best with Kaiming's initial attention",
    ),
    "mean-fusion": (
        lambda c: change(c, model={"fusion": MeanConfig()}),
        "best with the mean of all glimpses for attention",
    ),
    "without-stop-gradient": (
        lambda c: _tokens(c, stop_gradient=False),
        "best with gradients from policy to features",
    ),
    "without-separate-norms": (lambda c: change(c, model={"batch_norm": "shared"}), "best with shared norms"),
    "without-anti-aliasing": (
        lambda c: change(c, model={"sampling": BilinearConfig(align_corners=False)}),
        "best with bilinear sampling",
    ),
    "without-inhibition": (lambda c: _tokens(c, max_overlap=1.0), "best, free to look again"),
    "reward-likelihood": (
        lambda c: _rewarded(c, "likelihood"),
        "best, where windows that mislead are worth less than empty ones",
    ),
    "reward-progress": (lambda c: _rewarded(c, "progress"), "best, rewarded by the fall of the loss"),
    "reward-confidence": (lambda c: _rewarded(c, "confidence"), "best, rewarded by the rise of the probability"),
}
"""Name -> (change of the recipe, description)."""


def bench_localization(
    config: Config,
    methods: Sequence[str],
    out: Path,
    *,
    seeds: int = 1,
    records: Path | None = None,
    device: str = "auto",
    command: str | None = None,
    tell: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train the methods on the task of ``config``, and write OUT/localization.json and OUT/localization.png.

    Args:
        config: a recipe with the best method.
        methods: names in METHODS; ``mgnet``, ``pathwise-mipmap`` and ``oracle`` are added.
        out: folder for the runs.
        seeds: number of seeds for each method: 0, 1, ...
        records: folder of the records; runs with a record are not trained again. OUT/records if None.
        device: see :func:`glimpsenet.devices.choose_device`.
        command: the command line, for the JSON.
        tell: called with progress messages.

    Raises:
        SettingError: for an unknown method.
    """
    check_methods(methods)
    names = dict.fromkeys([*methods, REFERENCE, LIKE_FOR_LIKE, BOUND])
    experiments = {name: [replace(METHODS[name][0](config), seed=s) for s in range(seeds)] for name in names}
    found = train_series(experiments, out, records=records, device=device, tell=tell)
    return write_results(found, out, command)


def check_methods(methods: Sequence[str]) -> None:
    """Check that the methods exist.

    Raises:
        SettingError: names the first unknown one.
    """
    for name in methods:
        if name not in METHODS:
            raise SettingError(f"unknown method '{name}'; available: {', '.join(METHODS)}")


def write_results(results: Mapping[str, Sequence[Record]], out: Path, command: str | None = None) -> dict[str, Any]:
    """Summarise records under OUT/localization.json and draw OUT/localization.png; returns the JSON's content."""
    from glimpsenet.inspection.figures import save_figure

    curves = {name: [curve_of(record) for record in entries] for name, entries in results.items()}
    methods = {
        name: {"what": METHODS[name][1], **summarize(entries, "oracle" if name == BOUND else "learned")}
        for name, entries in results.items()
    }
    final = methods[REFERENCE]["accuracy"] if REFERENCE in methods else None
    for name, values in methods.items():
        values["steps_to_reference"] = None if name == BOUND else steps_to(curves[name], final)
    first = next(iter(results.values()))[0]
    values = {
        "command": command,
        "split": first["evaluation"]["split"],
        "images": first["evaluation"]["policies"]["learned"]["num_images"],
        "seeds": sorted({entry["summary"]["seed"] for entries in results.values() for entry in entries}),
        "methods": methods,
        "machine": common_machine([e["summary"]["machine"] for entries in results.values() for e in entries]),
    }
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "localization.json", values)
    save_figure(plot_methods(methods, curves), out / "localization.png")
    return values


def summarize(entries: Sequence[Mapping[str, Any]], judged: str = "learned") -> dict[str, Any]:
    """Means over seeds; accuracies, gap closed and found rate of every seed; ``judged`` is the policy they are of."""
    policies = [entry["evaluation"]["policies"] for entry in entries]

    def mean(values: Sequence[float]) -> float:
        return statistics.fmean(values)

    def by_glimpse(policy: str, name: str) -> list[float] | None:
        lists = [p[policy][name] for p in policies if policy in p]
        return [mean(column) for column in zip(*lists, strict=True)] if lists and lists[0] is not None else None

    accuracies = [p[judged]["accuracy"][-1] for p in policies]
    found = [p[judged]["found_rate"] for p in policies]
    shares = [gap_closed(p) if judged == "learned" else None for p in policies]
    return {
        "accuracy": mean(accuracies),
        "accuracy_deviation": statistics.stdev(accuracies) if len(accuracies) > 1 else None,
        "accuracies": accuracies,
        "accuracy_by_glimpse": by_glimpse(judged, "accuracy"),
        "found_rate": by_glimpse(judged, "found_rate"),
        "found_rates": None if found[0] is None else [rates[-1] for rates in found],
        "hit_rate": by_glimpse(judged, "hit_rate"),
        "mean_scale": by_glimpse(judged, "mean_scale"),
        **{name: mean([p[name]["accuracy"][-1] for p in policies]) for name in ("random", "center", "none")},
        "random_accuracies": [p["random"]["accuracy"][-1] for p in policies],
        "oracle": mean([p["oracle"]["accuracy"][-1] for p in policies]) if "oracle" in policies[0] else None,
        "gap_closed": None if None in shares else mean([share for share in shares if share is not None]),
        "gap_closed_by_seed": shares,
        "steps": entries[0]["summary"]["steps"],
        "seconds": mean([entry["summary"]["seconds"] for entry in entries]),
        "share_of_full_pass": entries[0]["summary"]["cost"]["share_of_full_pass"],
    }


def gap_closed(policies: Mapping[str, Any]) -> float | None:
    """(learned - random) / (oracle - random); None without boxes, or if windows add too little to the first glimpse.

    For a model that ignores its windows, the oracle can still beat random windows, because those do harm.
    """
    if "oracle" not in policies:
        return None
    learned, random, oracle, none = (policies[who]["accuracy"][-1] for who in ("learned", "random", "oracle", "none"))
    if oracle - random < WORTH_TELLING or max(learned, oracle) - none < WORTH_TELLING:
        return None
    return (learned - random) / (oracle - random)


def steps_to(curves: Sequence[Mapping[int, float]], wanted: float | None) -> int | None:
    """First validation at which the mean over seeds reaches ``wanted``; None if never."""
    if wanted is None:
        return None
    return next((step for step, value in mean_curve(curves).items() if value >= wanted), None)


def plot_methods(methods: Mapping[str, Any], curves: Mapping[str, Sequence[Mapping[int, float]]]) -> Any:
    """Plot each method's accuracy as bars (dots: seeds; beside them random and oracle), and the learning curves."""
    from matplotlib.figure import Figure

    from glimpsenet.inspection.figures import PALETTE

    names = sorted(methods, key=lambda name: methods[name]["accuracy"])
    chosen = [name for name in reversed(names) if name != BOUND]
    chosen = list(dict.fromkeys([*chosen[:5], *(name for name in (BEST, REFERENCE) if name in chosen)]))
    colors = dict(zip(chosen, PALETTE, strict=False))  # the same in both panels; grey without a curve
    figure = Figure(figsize=(11, 0.34 * len(names) + 2.2), layout="constrained")
    bars, lines = figure.subplots(1, 2, width_ratios=(1.15, 1))
    for place, name in enumerate(names):
        values = methods[name]
        bars.barh(place, values["accuracy"], color=colors.get(name, PALETTE[-1]), alpha=0.75, height=0.7)
        bars.plot(values["accuracies"], [place] * len(values["accuracies"]), "o", color="black", markersize=3)
        bars.plot(values["random"], place, "|", color="black", markersize=11)
        bars.text(0.01, place, f"{values['accuracy']:.3f}", va="center", fontsize=8)
    bars.set_yticks(range(len(names)), names, fontsize=8)
    bars.set_xlim(0, 1.02)
    bars.set_ylim(-0.6, len(names) - 0.4)
    bars.set_xlabel("accuracy after the last glimpse (dots: seeds; line: random windows)")
    for name in chosen:
        curve = mean_curve(curves[name])
        lines.plot(list(curve), list(curve.values()), color=colors[name], label=name, linewidth=1.8)
    lines.set_xlabel("optimiser steps")
    lines.set_ylabel("validation accuracy")
    lines.set_ylim(0, 1.02)
    lines.grid(alpha=0.3)
    lines.legend(fontsize=8, frameon=False)
    return figure
