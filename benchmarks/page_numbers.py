"""Single numbers on pages: name -> function that formats it from the results."""

from collections.abc import Callable
from typing import Any

from glimpsenet.bench.localization import BEST, LIKE_FOR_LIKE, REFERENCE
from page_readme import DIGITS, FAR, FIFTH, WHOLE, headline, like_for_like
from page_results import REPORT, SAID, Results
from page_tables import between, interval, pays_from

Number = Callable[[Results], str]
EXIT, RESNET, RESNET_HALF = "speed-early-exit.json", "speed-resnet18.json", "speed-resnet18-bfloat16.json"
CONVOLUTIONS, PIPELINE = "speed-convolutions.json", "speed-pipeline.json"
FAULTS, SOAK, SIGNS = "faults.json", "soak.json", "whole-image-traffic-signs.json"
QUALITY, SPECTRUM, PHOTOS = (f"{name}.json" for name in ("gradient-quality", "gradient-spectrum", "photo-gradients"))
ROBUST, ROBUST_SIGNS = "robustness-digits-seed-0.json", "robustness-traffic-signs-seed-0.json"


def plain(file: str, *path: str | int, form: str = "{:.3f}") -> Number:
    """An entry as it is."""
    return lambda results: form.format(results.entry(file, *path))


def learned(file: str, *path: str | int, form: str = "{:.3f}") -> Number:
    """The same, of results that say on which split and with which seeds."""

    def text(results: Results) -> str:
        results.read(file, *SAID)
        return form.format(results.entry(file, *path))

    return text


def flops(results: Results) -> str:
    """Of the first 1, 2, ... glimpses, of one pass of the plain backbone."""
    return " / ".join(f"{share:.0%}" for share in results.entry(RESNET, "cost", "share_of_full_pass"))


def faster(file: str) -> Number:
    """How many times as fast as the reference a training step is in the fast mode."""

    def text(results: Results) -> str:
        return f"{1 / _row(results.entry(file, 'training'), mode='fast')['ratio']:.1f}"

    return text


def convolutions(*passes: str) -> Number:
    """Share of the reference's training step that these passes of its convolutions take, in float32."""

    def text(results: Results) -> str:
        rows = results.entry(CONVOLUTIONS, "convolutions")
        spent = sum(row["calls"] * row["float32"][name]["ms"] for row in rows for name in passes)
        return f"{spent / _row(results.entry(RESNET, 'training'), mode='reference')['ms']:.0%}"

    return text


def half_convolutions(results: Results) -> str:
    """How many times as long the convolutions of a step take in bfloat16 as in float32."""
    spent = results.entry(CONVOLUTIONS, "step", "ms")
    return f"{spent['bfloat16'] / spent['float32']:.0f}"


def all_convolutions(results: Results) -> str:
    """The same of all of them, as they are timed within a step."""
    spent = results.entry(CONVOLUTIONS, "step", "ms", "float32")
    return f"{spent / _row(results.entry(RESNET, 'training'), mode='reference')['ms']:.0%}"


def exit_candidate(results: Results, name: str) -> dict[str, Any]:
    """Of early exit: means over seeds."""
    results.read(EXIT, *SAID)
    return _row(results.entry(EXIT, "candidates"), candidate=name)


def exit_fall(results: Results) -> str:
    """Points of accuracy that the calibrated thresholds lose: the mean, and the worst seed's."""
    calibrated = exit_candidate(results, "calibrated")
    return f"{100 * calibrated['fall']:.2f} points (worst seed {100 * max(calibrated['falls']):.2f})"


def exit_times(results: Results) -> str:
    """Range over batch sizes of the time that it takes, of all glimpses'."""
    ratios = [time["ratio"] for time in exit_candidate(results, "calibrated")["times"]]
    return f"{min(ratios):.2f} to {max(ratios):.2f}"


def break_even(place: int) -> Number:
    """From which image size on glimpses take less time, at the first or another of the batch sizes."""
    return lambda results: pays_from(results.entry("speed-scaling.json", "break_even", place))


def quality(around: str, parameter: str, measure: str, generator: str = "mipmap") -> Number:
    """Of the gradient, models pooled, with its interval."""

    def text(results: Results) -> str:
        results.read(QUALITY, "models")
        return interval(results.entry(QUALITY, "quality", around, generator, "pooled", parameter, measure))

    return text


def straightest(results: Results) -> str:
    """The greatest R^2 of all sweeps over photos."""
    return f"{max(row['r_squared'] for row in results.entry(PHOTOS, 'sweeps')):.2f}"


def basins(results: Results) -> str:
    """Widths of the basins on photos, in pixels."""
    return between([row["basin_px"] for row in results.entry(PHOTOS, "sweeps") if "basin_px" in row], "{:.0f}")


def fine_shares(results: Results) -> str:
    """Of the variance of dL/dtx, over the scales."""
    return between([row["mean"] for row in results.entry(SPECTRUM, "share")], "{:.0%}")


def waiting(workers: int) -> Number:
    """Share of training spent waiting for images."""
    return lambda results: f"{_row(results.entry(PIPELINE, 'loading'), workers=workers)['share_of_waiting']:.1%}"


def cores(way: str) -> Number:
    """That must read beside a GPU which trains on 5,000 images a second."""
    return lambda results: f"{_row(results.entry(PIPELINE, 'cores'), rate=5000)[way]:.0f}"


def augmenting(results: Results) -> str:
    """Share of the time of a lightly augmented image that decoding does not take."""
    rows = results.entry(PIPELINE, "decoding")
    decoded, whole = (_row(rows, reader="Pillow", stage=name)["ms"] for name in ("decoded", "light augmentation"))
    return f"{1 - decoded / whole:.0%}"


def torchvision_decodes(stage: str) -> Number:
    """How many times as fast as Pillow torchvision's decoder is, up to a stage."""

    def text(results: Results) -> str:
        rows = results.entry(PIPELINE, "decoding")
        ours, theirs = (_row(rows, reader=name, stage=stage)["ms"] for name in ("Pillow", "torchvision"))
        return f"{ours / theirs:.1f}"

    return text


def survives(file: str, model: int) -> Number:
    """Accuracy under the worst of all attacks."""
    return plain(file, "models", model, "worst_case", "accuracy", form="{:.2f}")


def growth_of_files(results: Results) -> str:
    """Open files, at most, of training and of prediction."""
    return f"{max(results.entry(SOAK, part, 'files_growth') for part in ('training', 'predictions')):.0f}"


def under_corruptions(results: Results) -> str:
    """Glimpses less whole image, with its interval."""
    found = results.entry(ROBUST_SIGNS, "differences", 0, "corruptions")
    return "{:+.3f} ({:+.3f} to {:+.3f})".format(found["difference"], *found["interval"])


def _row(rows: list[dict[str, Any]], **wanted: Any) -> dict[str, Any]:
    return next(row for row in rows if all(row[name] == value for name, value in wanted.items()))


NUMBERS: dict[str, Number] = {
    "digits-headline": headline,
    "whole-image-digits": lambda results: f"{results.entry(REPORT, 'rows', WHOLE, 'accuracy'):.3f}",
    "digits-differences": lambda results: " ".join(f"{points:+.1f}" for points in like_for_like(results)),
    "digits-like-for-like": learned(DIGITS, "methods", LIKE_FOR_LIKE, "accuracy"),
    "digits-mgnet": learned(DIGITS, "methods", REFERENCE, "accuracy"),
    "digits-found-first": learned(DIGITS, "methods", BEST, "found_rate", 1, form="{:.0%}"),
    "fifth-best": learned(FIFTH, "methods", BEST, "accuracy"),
    "fifth-like-for-like": learned(FIFTH, "methods", LIKE_FOR_LIKE, "accuracy"),
    "far-first": learned(FAR, "methods", BEST, "accuracy_by_glimpse", 0),
    "flops": flops,
    "training-faster": faster(RESNET),
    "training-faster-bfloat": faster(RESNET_HALF),
    "convolutions": all_convolutions,
    "convolutions-backward": convolutions("input gradient", "weight gradient"),
    "convolutions-half": half_convolutions,
    "exit-fall": exit_fall,
    "exit-times": exit_times,
    "break-even-first": break_even(0),
    "break-even-last": break_even(-1),
    "sign-s-true": quality("true", "s", "wanted_sign"),
    "sign-tx-true": quality("true", "tx", "wanted_sign"),
    "sign-ty-true": quality("true", "ty", "wanted_sign"),
    "sign-tx-true-linearized": quality("true", "tx", "wanted_sign", "linearized"),
    "sign-s-random": quality("random", "s", "wanted_sign"),
    "sign-tx-random": quality("random", "tx", "wanted_sign"),
    "sign-ty-random": quality("random", "ty", "wanted_sign"),
    "fine-shares": fine_shares,
    "photo-r-squared": straightest,
    "photo-basins": basins,
    "waiting-with": waiting(1),
    "waiting-without": waiting(0),
    "augmenting": augmenting,
    "cores-light": cores("Pillow, light"),
    "cores-imagenet": cores("Pillow, imagenet"),
    "torchvision-decodes": torchvision_decodes("decoded"),
    "torchvision-light": torchvision_decodes("light augmentation"),
    "faults-kills": plain(FAULTS, "kills", form="{}"),
    "faults-saving": plain(FAULTS, "while_saving", form="{}"),
    "soak-steps": plain(SOAK, "training", "steps", form="{:,}"),
    "soak-checkpoints": plain(SOAK, "training", "looks", form="{}"),
    "soak-growth": plain(SOAK, "training", "megabytes_growth", form="{:+.1f}"),
    "soak-predictions": plain(SOAK, "predictions", "predictions", form="{:,}"),
    "soak-unreadable": plain(SOAK, "predictions", "unreadable", form="{:,}"),
    "soak-predictions-growth": plain(SOAK, "predictions", "megabytes_growth", form="{:+.2f}"),
    "soak-files": growth_of_files,
    "robust-digits": survives(ROBUST, 0),
    "robust-digits-plain": survives(ROBUST, 1),
    "robust-signs": survives(ROBUST_SIGNS, 0),
    "robust-signs-plain": survives(ROBUST_SIGNS, 1),
    "robust-signs-corruptions": under_corruptions,
    "signs-photos": learned(SIGNS, "photos", form="{}"),
    "signs-flops": learned(SIGNS, "share_of_flops", form="{:.0%}"),
}
"""What stands between ``<!--n NAME-->`` and ``<!--/n-->``."""
