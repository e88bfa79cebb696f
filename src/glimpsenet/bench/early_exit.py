"""Early exit on images that its thresholds were not calibrated on, beside all looks and beside plain backbones.

    calibration half: full passes -> curve -> thresholds;     test half, cut into blocks: accuracy, looks, milliseconds

Every candidate runs over each block in turn, and the ratio of its time to that of all looks is taken block by block. A
plain backbone is a run with one glimpse (``--num-glimpses 1``), which is the whole image at ``glimpse_size`` pixels.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from glimpsenet.bench.timing import Timing, clock
from glimpsenet.config import DigitsConfig
from glimpsenet.data.loading import InOrder, create_loader, open_data
from glimpsenet.errors import UserError
from glimpsenet.evaluation.efficiency import count_operations
from glimpsenet.inference.early_exit import NEVER, ExitRule, Predictor, Score
from glimpsenet.inference.exit_curve import ExitCurve, exit_curve, full_passes
from glimpsenet.inference.fast import accelerate
from glimpsenet.inspection.figures import PALETTE
from glimpsenet.runs import Run

ALL_LOOKS, CALIBRATED = "all looks", "calibrated"
CURVE = (0.15, 0.3, 0.45, 0.6, 0.8)
"""Other points of the curve: mean looks beyond the first, as a share of those that there are."""
CHUNK = 64
"""Images read, and judged where nothing is timed, at once."""


@dataclass(frozen=True)
class Candidate:
    """A way to classify the test images."""

    name: str
    rule: ExitRule
    predictor: Predictor
    images: Tensor
    labels: Tensor
    operations: list[int]
    """Of one image up to each look."""

    def judge(self) -> dict[str, Any]:
        """Accuracy, looks and operations, which no clock changes."""
        outputs = [self.predictor(chunk) for chunk in self.images.split(CHUNK)]
        looks = torch.cat([output.looks for output in outputs]).cpu()
        answers = torch.cat([output.logits.argmax(-1) for output in outputs]).cpu()
        return {
            "candidate": self.name,
            "threshold": self.rule.threshold,
            "accuracy": float((answers == self.labels).double().mean()),
            "mean_looks": float(looks.double().mean()),
            "exits": (torch.bincount(looks, minlength=len(self.operations) + 1)[1:] / len(looks)).tolist(),
            "operations": float(torch.tensor(self.operations).double()[looks - 1].mean()),
        }

    def over(self, block: int, blocks: int, batch: int) -> Callable[[], None]:
        """Runs over one block of the images."""
        batches = self.images.tensor_split(blocks)[block].split(batch)

        def call() -> None:
            for images in batches:
                self.predictor(images)

        return call


def bench_early_exit(
    run: Run,
    *,
    plain: Sequence[Run] = (),
    within: float = 0.002,
    score: Score = "confidence",
    batch_sizes: Sequence[int],
    scenes: int = 10_000,
    blocks: int = 10,
    tell: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Measure early exit of one run.

    Args:
        run: with several glimpses.
        plain: runs with one, to compare with.
        within: how far below all looks accuracy may fall, 0..1: see :meth:`ExitCurve.for_fall`.
        score: what thresholds are compared with.
        batch_sizes: to time.
        scenes: digit scenes to test on; of other data it is half of the validation images.
        blocks: parts of the test images, each of them one repetition.
        tell: called with what is finished.

    Returns:
        ``calibration`` (what was expected) and ``candidates``, each with rows of times under ``times``.
    """
    model = accelerate(run.model)
    calibration, (images, labels) = _halves(run, scenes)
    curve = exit_curve(*full_passes(run.model, calibration), score)
    rule = curve.for_fall(within)
    rules = {ALL_LOOKS: NEVER, CALIBRATED: rule} | _along(curve)
    operations = count_operations(run.model, run.config.model.image_size, run.channels)
    candidates = [
        Candidate(name, rule, Predictor(model, rule), images, labels, operations) for name, rule in rules.items()
    ]
    candidates += [_plain(other, scenes) for other in plain]
    judged = {candidate.name: {**candidate.judge(), "times": []} for candidate in candidates}
    tell(f"{run.folder}: accuracy on {len(labels)} images")
    for batch in batch_sizes:
        for name, timing, ratio in _time(candidates, batch, blocks):
            judged[name]["times"].append({"batch": batch, **timing.to_dict(), "ratio": ratio})
        tell(f"{run.folder}: times at batch {batch}")
    expected = {"within": within, "score": score, "accuracy": float(curve.accuracy[-1]), "threshold": rule.threshold}
    return {"images": len(labels), "calibration": expected, "candidates": list(judged.values())}


def _halves(run: Run, scenes: int) -> tuple[Any, tuple[Tensor, Tensor]]:
    """A loader of every second validation image, to calibrate on, and the other ones with their labels, to test on."""
    config = run.config
    if isinstance(config.data, DigitsConfig):
        config = replace(config, data=replace(config.data, val_scenes=2 * scenes))
    val = open_data(config, run.classes, run.channels).val
    first, second = (create_loader(val, InOrder(len(val), rank=half, world_size=2), CHUNK) for half in range(2))
    batches = list(second)
    if problems := [problem for batch in batches for problem in batch.problems]:
        raise UserError(f"{problems[0]}; remove the file")
    device = run.model.classifier.weight.device
    return first, (torch.cat([b.images for b in batches]).to(device), torch.cat([b.labels for b in batches]))


def _along(curve: ExitCurve) -> dict[str, ExitRule]:
    """Rules for other mean numbers of looks."""
    most = curve.exits.shape[1]
    wanted = [1 + share * (most - 1) for share in CURVE]
    return {f"{looks:.2f} looks": curve.for_cost(looks) for looks in wanted}


def _plain(run: Run, scenes: int) -> Candidate:
    if run.model.num_glimpses != 1:
        raise UserError(f"{run.folder} is no plain backbone: it takes {run.model.num_glimpses} glimpses, not one")
    model, config = accelerate(run.model), run.config.model
    operations = count_operations(run.model, config.image_size, run.channels)
    name = f"plain {config.backbone}, {config.glimpse_size} px"
    return Candidate(name, NEVER, Predictor(model), *_halves(run, scenes)[1], operations)


def _time(candidates: Sequence[Candidate], batch: int, blocks: int) -> list[tuple[str, Timing, float]]:
    """Seconds an image, and the median over blocks of the ratio to the first candidate's."""
    device = candidates[0].images.device
    seconds: list[list[float]] = [[] for _ in candidates]
    for candidate in candidates:
        candidate.over(0, blocks, batch)()
    for block in range(blocks):
        for candidate, measured in zip(candidates, seconds, strict=True):
            count = len(candidate.images.tensor_split(blocks)[block])
            measured.append(clock(candidate.over(block, blocks, batch), device) / count)
    ratios = [statistics.median(own / all_looks for own, all_looks in zip(s, seconds[0], strict=True)) for s in seconds]
    return [(c.name, Timing(s), ratio) for c, s, ratio in zip(candidates, seconds, ratios, strict=True)]


def plot_early_exit(result: dict[str, Any]) -> Figure:
    """Accuracy against operations, and against milliseconds at every batch size; plain backbones as crosses."""
    batches = [time["batch"] for time in result["candidates"][0]["times"]]
    figure = Figure(figsize=(3.6 * (1 + len(batches)), 3.4), layout="constrained")
    axes = figure.subplots(1, 1 + len(batches), sharey=True, squeeze=False)[0]
    for place, panel in enumerate(axes):
        for plain in (False, True):
            points = sorted(
                (c["operations"] / 1e6 if place == 0 else c["times"][place - 1]["ms"], c["accuracy"], c["candidate"])
                for c in result["candidates"]
                if c["candidate"].startswith("plain") == plain
            )
            if points:
                _draw_curve(panel, points, plain)
        panel.set_xlabel("million operations an image" if place == 0 else f"ms an image, batch {batches[place - 1]}")
        panel.grid(alpha=0.3)
        panel.margins(0.2, 0.15)
    axes[0].set_ylabel("accuracy")
    figure.legend(*axes[0].get_legend_handles_labels(), fontsize=8, loc="outside upper center", ncols=4)
    return figure


def _draw_curve(panel: Axes, points: list[tuple[float, float, str]], plain: bool) -> None:
    """A line through points (x, accuracy, candidate); the legend names the two that would overprint each other here."""
    color = PALETTE[1 if plain else 0]
    xs, ys = [x for x, *_ in points], [y for _, y, _ in points]
    panel.plot(
        xs, ys, "x--" if plain else "o-", color=color, label="plain backbone" if plain else "glimpses, early exit"
    )
    markers = {ALL_LOOKS: "s", CALIBRATED: "D"}
    for x, y, candidate in points:
        if plain:
            pixels = candidate.rsplit(", ")[-1]
            panel.annotate(pixels, (x, y), fontsize=8, xytext=(7, -9), textcoords="offset points")
        elif candidate in markers:
            panel.plot(
                *(x, y, markers[candidate]),
                markersize=11 if candidate == ALL_LOOKS else 8,  # they may be on one place
                markerfacecolor="none",
                markeredgecolor="black",
                markeredgewidth=1.4,
                zorder=3,
                linestyle="none",
                label=candidate,
            )
