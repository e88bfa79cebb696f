"""Early exit on images that its thresholds were not calibrated on, beside all glimpses and beside plain backbones.

    val: full passes -> curve -> thresholds;   test: accuracy and glimpses of all images, milliseconds of some

Data without a test split give one half of val to calibrate on and the other to test on. Several runs that differ in
their seed make a series: each is calibrated and measured by itself, then means and ranges over the runs are told. Every
candidate runs over each block in turn, and the ratio of its time to that of all glimpses is taken block by block. A
plain backbone is a run with one glimpse (``num_glimpses`` 1), which is the whole image at ``glimpse_size`` pixels.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.data import DataLoader

from glimpsenet.bench.config import EarlyExitSettings
from glimpsenet.bench.timing import Timing, clock
from glimpsenet.data.loading import InOrder, create_loader, open_data
from glimpsenet.data.sample import Batch
from glimpsenet.errors import UnreadableImageError, UserError
from glimpsenet.evaluation.efficiency import count_flops
from glimpsenet.inference.early_exit import NEVER, ExitRule, Predictor
from glimpsenet.inference.exit_curve import ExitCurve, exit_curve, full_passes
from glimpsenet.inference.fast import accelerate
from glimpsenet.inspection.figures import PALETTE
from glimpsenet.provenance import portable
from glimpsenet.runs import Run

ALL, CALIBRATED = "all glimpses", "calibrated"
CURVE = (0.15, 0.3, 0.45, 0.6, 0.8)
"""Other points of the curve: mean glimpses beyond the first, as a share of those that there are."""
CHUNK = 64
"""Images read, and judged where nothing is timed, at once."""


@dataclass(frozen=True)
class HeldOut:
    """What thresholds are calibrated on, and what they are judged on."""

    calibration: DataLoader[Batch]
    images: Tensor
    labels: Tensor
    split: str
    """Where the images are from."""


@dataclass(frozen=True)
class Candidate:
    """A way to classify the test images."""

    name: str
    rule: ExitRule
    predictor: Predictor
    test: HeldOut
    flops: list[int]
    """Of one image up to each glimpse."""

    def judge(self) -> dict[str, Any]:
        """Accuracy, glimpses and FLOPs, which no clock changes."""
        outputs = [self.predictor(chunk) for chunk in self.test.images.split(CHUNK)]
        glimpses = torch.cat([output.num_glimpses for output in outputs]).cpu()
        answers = torch.cat([output.logits.argmax(-1) for output in outputs]).cpu()
        return {
            "candidate": self.name,
            "threshold": self.rule.threshold,
            "accuracy": float((answers == self.test.labels).double().mean()),
            "mean_glimpses": float(glimpses.double().mean()),
            "exits": (torch.bincount(glimpses, minlength=len(self.flops) + 1)[1:] / len(glimpses)).tolist(),
            "flops": float(torch.tensor(self.flops).double()[glimpses - 1].mean()),
        }

    def blocks(self, timed: int, blocks: int) -> list[Tensor]:
        """The images to time, evenly spaced, in as many parts."""
        stride = max(1, len(self.test.images) // timed)
        return list(self.test.images[::stride][:timed].tensor_split(blocks))

    def over(self, images: Tensor, batch: int) -> Callable[[], None]:
        """Runs over images, so many at a time."""
        batches = images.split(batch)

        def call() -> None:
            for part in batches:
                self.predictor(part)

        return call


def bench_early_exit(
    runs: Sequence[Run],
    settings: EarlyExitSettings | None = None,
    *,
    plain: Sequence[Run] = (),
    tell: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Measure early exit of one run, or of several that differ in their seed.

    Args:
        runs: with several glimpses.
        settings: how it is calibrated and measured.
        plain: runs with one glimpse, to compare with: of each size one for every one of ``runs``, in their order.
        tell: called with what is finished.

    Returns:
        ``split``, ``images``, ``timed_images``, ``repetitions``, ``seeds``, ``within``, ``score``; ``candidates``:
        means over the runs and the values of each; ``runs``: what was measured of each, with its calibration.

    Raises:
        UserError: if the runs differ in more than their seed, plain ones do not match them, or images are too few.
    """
    settings = settings or EarlyExitSettings()
    _check_series(runs)
    groups = _group(plain, len(runs))
    opened: dict[Any, HeldOut] = {}

    def held_out(run: Run) -> HeldOut:
        key = run.config.data, run.config.model.image_size
        if key not in opened:
            opened[key] = open_held_out(run, settings.scenes)
        return opened[key]

    measured = [
        _measure(run, {name: group[place] for name, group in groups.items()}, held_out, settings, tell)
        for place, run in enumerate(runs)
    ]
    test = held_out(runs[0])
    return {
        "split": test.split,
        "images": len(test.labels),
        "timed_images": min(settings.timed, len(test.labels)),
        "repetitions": settings.blocks,
        "seeds": [run.config.seed for run in runs],
        "within": settings.within,
        "score": settings.score,
        "candidates": summarize([entry["candidates"] for entry in measured]),
        "runs": measured,
    }


def _measure(
    run: Run,
    plain: dict[str, Run],
    held_out: Callable[[Run], HeldOut],
    settings: EarlyExitSettings,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """One run beside its plain backbones: calibration, accuracies, times."""
    test, timed, blocks = held_out(run), settings.timed, settings.blocks
    if min(timed, len(test.labels)) < blocks:
        raise UserError(f"{min(timed, len(test.labels))} images to time cannot be cut into {blocks} blocks")
    curve = exit_curve(*full_passes(run.model, test.calibration), settings.score)
    rule = curve.for_fall(settings.within)
    candidates = _candidates(run, {ALL: NEVER, CALIBRATED: rule} | _along(curve), test)
    candidates += [_plain(name, other, held_out(other)) for name, other in plain.items()]
    judged = {candidate.name: {**candidate.judge(), "times": []} for candidate in candidates}
    tell(f"{run.folder}: accuracy on {len(test.labels)} images")
    for batch in settings.batch_sizes:
        for name, timing, ratio in _time(candidates, batch, timed, blocks):
            judged[name]["times"].append({"batch": batch, **timing.to_dict(), "ratio": ratio})
        tell(f"{run.folder}: times at batch {batch}")
    calibration = {"accuracy": float(curve.accuracy[-1]), "threshold": rule.threshold}
    entry = {"run": portable(str(run.folder)), "seed": run.config.seed, "calibration": calibration}
    return {**entry, "candidates": list(judged.values())}


def summarize(runs: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Means over runs, and each run's own: a row a candidate. ``fall`` is below all glimpses of the same run."""
    rows = []
    for entries in zip(*runs, strict=True):
        accuracies = [entry["accuracy"] for entry in entries]
        falls = [run[0]["accuracy"] - accuracy for run, accuracy in zip(runs, accuracies, strict=True)]
        times = [
            {
                "batch": same[0]["batch"],
                **{name: statistics.fmean(time[name] for time in same) for name in ("ms", "ratio")},
                "each_ms": [time["ms"] for time in same],
                "ratios": [time["ratio"] for time in same],
            }
            for same in zip(*(entry["times"] for entry in entries), strict=True)
        ]
        rows.append(
            {
                "candidate": entries[0]["candidate"],
                "accuracy": statistics.fmean(accuracies),
                "accuracies": accuracies,
                "fall": statistics.fmean(falls),
                "falls": falls,
                **{name: statistics.fmean(e[name] for e in entries) for name in ("mean_glimpses", "flops")},
                "times": times,
            }
        )
    return rows


def open_held_out(run: Run, scenes: int) -> HeldOut:
    """Images to calibrate on (val) and to test on (test); of data without test each is a half of val.

    Raises:
        UserError: for an image to test on that cannot be read.
    """
    config = replace(run.config, data=run.config.data.with_scenes(scenes))
    splits = open_data(config, run.classes, run.channels)
    split, images = splits.held_out()
    shared = split == "val"
    first, second = (
        create_loader(part, InOrder(len(part), rank=half if shared else 0, world_size=2 if shared else 1), CHUNK)
        for half, part in enumerate((splits.val, images))
    )
    batches = list(second)
    if problems := [problem for batch in batches for problem in batch.problems]:
        raise UnreadableImageError(f"{problems[0]}; remove the file")
    device = run.model.classifier.weight.device
    pixels = torch.cat([batch.images for batch in batches]).to(device)
    return HeldOut(first, pixels, torch.cat([batch.labels for batch in batches]), "half of val" if shared else split)


def _check_series(runs: Sequence[Run]) -> None:
    """Refuse runs whose means would mix unlike models."""
    for run in runs[1:]:
        for part in ("model", "data"):
            one, other = (asdict(getattr(any_run.config, part)) for any_run in (runs[0], run))
            if changed := [name for name in other if one.get(name) != other[name]]:
                raise UserError(
                    f"{run.folder} has another {part} than {runs[0].folder}: {changed[0]} is {other[changed[0]]}, not "
                    f"{one.get(changed[0])}; runs measured together differ in their seed only"
                )


def _group(plain: Sequence[Run], runs: int) -> dict[str, list[Run]]:
    """Plain backbones by name, one of each for every run."""
    groups: dict[str, list[Run]] = {}
    for run in plain:
        if run.model.num_glimpses != 1:
            raise UserError(f"{run.folder} is no plain backbone: it takes {run.model.num_glimpses} glimpses, not one")
        model = run.config.model
        groups.setdefault(f"plain {model.backbone}, {model.glimpse_size} px", []).append(run)
    for name, group in groups.items():
        if len(group) != runs:
            raise UserError(f"there are {len(group)} runs of '{name}' for {runs} with glimpses: name one for each")
    return groups


def _candidates(run: Run, rules: dict[str, ExitRule], test: HeldOut) -> list[Candidate]:
    model = accelerate(run.model)
    flops = count_flops(run.model, run.config.model.image_size, run.channels)
    return [Candidate(name, rule, Predictor(model, rule), test, flops) for name, rule in rules.items()]


def _along(curve: ExitCurve) -> dict[str, ExitRule]:
    """Rules for other mean numbers of glimpses."""
    most = curve.exits.shape[1]
    wanted = [1 + share * (most - 1) for share in CURVE]
    return {f"{glimpses:.2f} glimpses": curve.for_cost(glimpses) for glimpses in wanted}


def _plain(name: str, run: Run, test: HeldOut) -> Candidate:
    return _candidates(run, {name: NEVER}, test)[0]


def _time(candidates: Sequence[Candidate], batch: int, timed: int, blocks: int) -> list[tuple[str, Timing, float]]:
    """Seconds an image, and the median over blocks of the ratio to the first candidate's."""
    device = candidates[0].test.images.device
    parts = [candidate.blocks(timed, blocks) for candidate in candidates]
    seconds: list[list[float]] = [[] for _ in candidates]
    for candidate, own in zip(candidates, parts, strict=True):
        candidate.over(own[0], batch)()
    for block in range(blocks):
        for candidate, own, measured in zip(candidates, parts, seconds, strict=True):
            measured.append(clock(candidate.over(own[block], batch), device) / len(own[block]))
    ratios = [statistics.median(own / whole for own, whole in zip(s, seconds[0], strict=True)) for s in seconds]
    return [(c.name, Timing(s), ratio) for c, s, ratio in zip(candidates, seconds, ratios, strict=True)]


def plot_early_exit(result: dict[str, Any]) -> Figure:
    """Mean accuracy against FLOPs, and against milliseconds at every batch size; bars reach from the worst run to
    the best, plain backbones are crosses.
    """
    batches = [time["batch"] for time in result["candidates"][0]["times"]]
    figure = Figure(figsize=(3.6 * (1 + len(batches)), 3.4), layout="constrained")
    axes = figure.subplots(1, 1 + len(batches), sharey=True, squeeze=False)[0]
    for place, panel in enumerate(axes):
        for plain in (False, True):
            points = sorted(
                (c["flops"] / 1e6 if place == 0 else c["times"][place - 1]["ms"], c["accuracy"], c["candidate"])
                for c in result["candidates"]
                if c["candidate"].startswith("plain") == plain
            )
            if points:
                _draw_curve(panel, points, plain)
        for c in result["candidates"]:
            x = c["flops"] / 1e6 if place == 0 else c["times"][place - 1]["ms"]
            panel.vlines(x, min(c["accuracies"]), max(c["accuracies"]), color="gray", linewidth=1.2, zorder=1)
        panel.set_xlabel("MFLOPs an image" if place == 0 else f"ms an image, batch {batches[place - 1]}")
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
    markers = {ALL: "s", CALIBRATED: "D"}
    for x, y, candidate in points:
        if plain:
            pixels = candidate.rsplit(", ")[-1]
            panel.annotate(pixels, (x, y), fontsize=8, xytext=(7, -9), textcoords="offset points")
        elif candidate in markers:
            panel.plot(
                *(x, y, markers[candidate]),
                markersize=11 if candidate == ALL else 8,  # they may be on one place
                markerfacecolor="none",
                markeredgecolor="black",
                markeredgewidth=1.4,
                zorder=3,
                linestyle="none",
                label=candidate,
            )
