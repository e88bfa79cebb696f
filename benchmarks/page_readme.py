"""README's table of measurements: one row per claim, with split, seeds and spread."""

import statistics
from collections.abc import Callable

from glimpsenet.bench.localization import BEST, BOUND, LIKE_FOR_LIKE, REFERENCE
from page_results import SAID, NotMeasuredError, Results
from page_tables import each, spread, table

MISSING = "not measured yet"
Cells = tuple[str, str, str]
"""The result, every seed's own or another spread, and on what it was measured."""
Row = Callable[[Results], Cells]


def accuracy(file: str, *path: str) -> Row:
    """Of a list with every seed's own."""

    def cells(results: Results) -> Cells:
        result = results.read(file, *SAID)
        values = results.entry(file, *path)
        return spread(values), each(values), f"{result['split']}, {len(values)} seeds"

    return cells


def of_method(file: str, method: str, values: str = "accuracies") -> Row:
    """Of ``glimpsenet bench localization``."""
    return accuracy(file, "methods", method, values)


def traffic_signs(results: Results) -> Cells:
    """Glimpses, with what they cost beside the whole image."""
    file = "whole-image-traffic-signs.json"
    result, seeds, split = accuracy(file, "glimpses", "accuracies")(results)
    return f"{result} for {results.entry(file, 'share_of_flops'):.0%} of the FLOPs", seeds, split


def speed(mode: str) -> Row:
    """Time of the glimpses beside the plain backbone's, both in one mode."""

    def cells(results: Results) -> Cells:
        file = "speed-resnet18.json"
        rows = [row for row in results.entry(file, "ratios") if row["mode"] == mode]
        told = "quartiles " + " / ".join("{:.2f}-{:.2f}".format(*row["ratio_quartiles"]) for row in rows)
        batches = " / ".join(str(row["batch"]) for row in rows)
        ratios = " / ".join(f"{row['ratio']:.2f}" for row in rows)
        return f"**{ratios}**", told, _timed(results, file, batches)

    return cells


def larger_images(results: Results) -> Cells:
    """The same on the largest images of ``bench scaling``."""
    file = "speed-scaling.json"
    results.read(file, "break_even")
    sized = [row for row in results.entry(file, "rows") if row["varied"] == "image size"]
    rows = [row for row in sized if row["value"] == max(one["value"] for one in sized)]
    told = "quartiles " + " / ".join("{:.2f}-{:.2f}".format(*row["ratio_quartiles"]) for row in rows)
    batches = " / ".join(str(row["batch"]) for row in rows)
    ratios = " / ".join(f"{row['ratio']:.2f}" for row in rows)
    return f"**{ratios}** at {rows[0]['value']} px", told, _timed(results, file, batches)


def _timed(results: Results, file: str, batches: str) -> str:
    machine, repetitions = results.entry(file, "machine"), results.entry(file, "repetitions")
    where = f"{machine['cpu']}, {machine['instruction_set']}, {machine['threads']} threads"
    return f"batch {batches}; float32, {where}, {repetitions} repetitions"


def early_exit(results: Results) -> Cells:
    """What the calibrated threshold loses and saves, means over seeds."""
    file = "speed-early-exit.json"
    result = results.read(file, *SAID)
    calibrated = results.entry(file, "candidates", 1)
    shares = " / ".join(f"{time['ratio']:.2f}" for time in calibrated["times"])
    batches = " / ".join(str(time["batch"]) for time in calibrated["times"])
    falls = " ".join(f"{100 * fall:.2f}" for fall in calibrated["falls"])
    told = f"{result['split']}, {result['images']} scenes, {len(result['seeds'])} seeds; batch {batches}"
    return f"{100 * calibrated['fall']:.2f} points less for **{shares}** of the time", f"{falls} points", told


def faults(results: Results) -> Cells:
    """Killed and resumed, beside undisturbed."""
    file = "faults.json"
    differing = len(results.read(file, "differences")["differences"])
    kills, saving = results.entry(file, "kills"), results.entry(file, "while_saving")
    same = "the same weights, **bit for bit**" if not differing else f"**{differing} differences**"
    return same, "", f"{kills} kills, {saving} of them while saving"


DIGITS, FIFTH, FAR = (f"localization-digits{part}.json" for part in ("", "-fifth", "-far"))
COMMAND = "`glimpsenet bench localization --methods best --seeds 3`"
ROWS: tuple[tuple[str, Row, str], ...] = (
    ("digit scenes: accuracy after four glimpses", of_method(DIGITS, BEST), COMMAND),
    ("... like for like: the same recipe with MGNet's localization", of_method(DIGITS, LIKE_FOR_LIKE), ""),
    ("... all of MGNet", of_method(DIGITS, REFERENCE), ""),
    ("... random windows, our weights", of_method(DIGITS, BEST, "random_accuracies"), ""),
    ("... trained on true windows: the bound", of_method(DIGITS, BOUND), ""),
    ("the digit was in a window", of_method(DIGITS, BEST, "found_rates"), ""),
    ("... like for like", of_method(DIGITS, LIKE_FOR_LIKE, "found_rates"), ""),
    ("... all of MGNet", of_method(DIGITS, REFERENCE, "found_rates"), ""),
    ("a fifth of the schedule: accuracy", of_method(FIFTH, BEST), "`... --max-steps 225`"),
    ("... like for like", of_method(FIFTH, LIKE_FOR_LIKE), ""),
    ("far scenes, the digit under 3 px wide in the first glimpse", of_method(FAR, BEST), "`... --task digits-far`"),
    ("... like for like", of_method(FAR, LIKE_FOR_LIKE), ""),
    (
        "street photos, 19 traffic signs, trained on class labels only",
        traffic_signs,
        "`python benchmarks/whole_image.py --data PHOTOS --backbone tf_efficientnet_lite0`",
    ),
    (
        "... the plain backbone on the whole photo",
        accuracy("whole-image-traffic-signs.json", "whole-image", "accuracies"),
        "",
    ),
    (
        "ResNet-18 at 224 px: time of four glimpses beside the plain backbone's, both accelerated",
        speed("fast"),
        "`glimpsenet bench speed resnet18`",
    ),
    ("... both eager", speed("eager"), ""),
    ("... both accelerated, larger images", larger_images, "`glimpsenet bench scaling resnet18`"),
    ("early exit, digit scenes", early_exit, "`glimpsenet bench early-exit RUN...`"),
    ("killed at random moments, resumed", faults, "`python benchmarks/faults.py`"),
)


def measured(results: Results) -> list[str]:
    """The whole table; a row without results says so."""
    rows = []
    for what, cells, command in ROWS:
        try:
            rows.append([what, *cells(results), command])
        except NotMeasuredError:
            rows.append([what, MISSING, "", "", command])
    return table(["", "result", "of each seed", "measured on", "command"], rows, words=5)


def like_for_like(results: Results) -> list[float]:
    """Ours less the same recipe with MGNet's localization, in points of accuracy, seed by seed."""
    results.read(DIGITS, *SAID)
    ours, theirs = (results.entry(DIGITS, "methods", name, "accuracies") for name in (BEST, LIKE_FOR_LIKE))
    return [100 * (one - other) for one, other in zip(ours, theirs, strict=True)]


def headline(results: Results) -> str:
    """Mean and deviation of :func:`like_for_like`."""
    points = like_for_like(results)
    deviation = f" ± {statistics.stdev(points):.1f}" if len(points) > 1 else ""
    return f"{statistics.fmean(points):+.1f}{deviation}"
