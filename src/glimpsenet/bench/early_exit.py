"""Early exit, tested on images not used for calibration, against all glimpses and plain backbones.

    val: full passes -> curve -> thresholds;   test: accuracy and glimpses of all images, milliseconds of some

Without a test split, one half of val is for calibration and the other for testing. Several runs that differ only in
their seed make a series: each is calibrated and measured separately, then means and ranges over runs are reported. All
candidates take turns on each block, and the ratio of their time to that of all glimpses is computed per block. A plain
backbone is a run with one glimpse (``num_glimpses`` 1), the whole image at ``glimpse_size`` pixels.
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
"""Other points of the curve: mean number of glimpses beyond the first, as a share of the available ones."""
CHUNK = 64
"""Images per batch when reading, and when testing without timing."""


@dataclass(frozen=True)
class HeldOut:
    """Data for calibrating thresholds, and data for testing them."""

    calibration: DataLoader[Batch]
    images: Tensor
    labels: Tensor
    split: str
    """The test images' source."""


@dataclass(frozen=True)
class Candidate:
    """A way to classify the test images."""

    name: str
    rule: ExitRule
    predictor: Predictor
    test: HeldOut
    flops: list[int]
    """FLOPs of one image up to each glimpse."""

    def judge(self) -> dict[str, Any]:
        """Accuracy, glimpses and FLOPs: everything but times."""
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
        """The images to time, evenly spaced, split into blocks."""
        stride = max(1, len(self.test.images) // timed)
        return list(self.test.images[::stride][:timed].tensor_split(blocks))

    def over(self, images: Tensor, batch: int) -> Callable[[], None]:
        """A call that classifies ``images`` in batches."""
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
    """Measure early exit of one run, or of several that differ only in their seed.

    Args:
        runs: runs with several glimpses.
        settings: how early exit is calibrated and measured.
        plain: runs with one glimpse, for comparison; for each size, one for each of ``runs``, in the same order.
        tell: called with progress messages.

    Returns:
        ``split``, ``images``, ``timed_images``, ``repetitions``, ``seeds``, ``within``, ``score``; ``candidates``:
        means over the runs and each run's values; ``runs``: each run's measurements and calibration.

    Raises:
        UserError: if runs differ in more than their seed, plain ones do not match, or there are too few images.
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
    """Measure one run and its plain backbones: calibration, accuracies, times."""
    test, timed, blocks = held_out(run), settings.timed, settings.blocks
    if min(timed, len(test.labels)) < blocks:
        raise UserError(f"{min(timed, len(test.labels))} images to time cannot be split into {blocks} blocks")
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
    """Means over runs and each run's values, one row per candidate; ``fall`` is relative to the run's all glimpses."""
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
    """Images for calibration (val) and testing (test); without a test split, each is one half of val.

    Raises:
        UserError: for an unreadable test image.
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
    """Reject runs that differ in more than their seed."""
    for run in runs[1:]:
        for part in ("model", "data"):
            one, other = (asdict(getattr(any_run.config, part)) for any_run in (runs[0], run))
            if changed := [name for name in other if one.get(name) != other[name]]:
                raise UserError(
                    f"{run.folder} differs from {runs[0].folder} in its {part}: {changed[0]} is {other[changed[0]]}, "
                    f"not {one.get(changed[0])}; runs measured together may differ only in their seed"
                )


def _group(plain: Sequence[Run], runs: int) -> dict[str, list[Run]]:
    """Plain backbones by name, one for each run."""
    groups: dict[str, list[Run]] = {}
    for run in plain:
        if run.model.num_glimpses != 1:
            raise UserError(f"{run.folder} is no plain backbone: it takes {run.model.num_glimpses} glimpses, not one")
        model = run.config.model
        groups.setdefault(f"plain {model.backbone}, {model.glimpse_size} px", []).append(run)
    for name, group in groups.items():
        if len(group) != runs:
            raise UserError(f"got {len(group)} runs of '{name}' for {runs} with glimpses: name one for each")
    return groups


def _candidates(run: Run, rules: dict[str, ExitRule], test: HeldOut) -> list[Candidate]:
    model = accelerate(run.model)
    flops = count_flops(run.model, run.config.model.image_size, run.channels)
    return [Candidate(name, rule, Predictor(model, rule), test, flops) for name, rule in rules.items()]


def _along(curve: ExitCurve) -> dict[str, ExitRule]:
    """Exit rules for other mean numbers of glimpses."""
    most = curve.exits.shape[1]
    wanted = [1 + share * (most - 1) for share in CURVE]
    return {f"{glimpses:.2f} glimpses": curve.for_cost(glimpses) for glimpses in wanted}


def _plain(name: str, run: Run, test: HeldOut) -> Candidate:
    return _candidates(run, {name: NEVER}, test)[0]


def _time(candidates: Sequence[Candidate], batch: int, timed: int, blocks: int) -> list[tuple[str, Timing, float]]:
    """Seconds per image, and the median over blocks of the ratio to the first candidate's."""
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
    """Plot mean accuracy against FLOPs, and against milliseconds at each batch size. Bars reach from the worst run to
    the best; plain backbones are crosses.
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
        panel.set_xlabel("MFLOPs per image" if place == 0 else f"ms per image, batch {batches[place - 1]}")
        panel.grid(alpha=0.3)
        panel.margins(0.2, 0.15)
    axes[0].set_ylabel("accuracy")
    figure.legend(*axes[0].get_legend_handles_labels(), fontsize=8, loc="outside upper center", ncols=4)
    return figure


def _draw_curve(panel: Axes, points: list[tuple[float, float, str]], plain: bool) -> None:
    """Draw a line through points (x, accuracy, candidate); the legend names two whose labels would overlap here."""
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
                markersize=11 if candidate == ALL else 8,  # their points may coincide
                markerfacecolor="none",
                markeredgecolor="black",
                markeredgewidth=1.4,
                zorder=3,
                linestyle="none",
                label=candidate,
            )
