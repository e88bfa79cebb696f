"""The tables on pages, each from one JSON of results: one function per table, and their names."""

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from glimpsenet.reproduction.report import accuracy_table, gain_table, settings_table, window_table
from page_results import REPORT, SAID, Results

Result = dict[str, Any]


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> list[str]:
    """In Markdown: the first columns, of words, left, the others right."""
    lines = [columns, [*["---"] * words, *["---:"] * (len(columns) - words)], *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def circumstances(result: Result) -> list[str]:
    """Where and how it was measured; old results do not say all of it."""
    machine = result["machine"]
    parts = [f"`{result['command']}`"] if result.get("command") else []
    parts += [f"split {result['split']}"] if "split" in result else []
    parts += [f"seeds {' '.join(map(str, result['seeds']))}"] if result.get("seeds") else []
    processor = [machine["cpu"], *([machine["instruction_set"]] if "instruction_set" in machine else [])]
    counts = [f"{machine['cores']} cores", f"{machine['threads']} threads"]
    parts.append(f"{machine['device']} ({', '.join(processor + counts)})")
    versions = ("python", "torch", "torchvision", "timm", "glimpsenet", "commit")
    parts.append(", ".join(f"{name} {machine[name]}" for name in versions if machine.get(name)))
    return ["", f"{'; '.join(parts)}."]


def milliseconds(row: Result) -> str:
    """Median and quartiles."""
    low, high = row["ms_quartiles"]
    return f"{row['ms']:.1f} ({low:.1f}-{high:.1f})"


def ratio(row: Result) -> str:
    """Of the medians, and the quartiles over repetitions."""
    low, high = row["ratio_quartiles"]
    return f"{row['ratio']:.2f} ({low:.2f}-{high:.2f})"


def speed_ratios(result: Result) -> list[str]:
    """A row a mode, a column a batch size: time of all glimpses beside the plain backbone's."""
    modes, batches = ([*dict.fromkeys(row[name] for row in result["ratios"])] for name in ("mode", "batch"))
    found = {(row["mode"], row["batch"]): ratio(row) for row in result["ratios"]}
    rows = [[f"both {mode}", *(found[mode, batch] for batch in batches)] for mode in modes]
    told = f"{result['precision']}; medians of {result['repetitions']} repetitions, in brackets the quartiles."
    columns = ["time of the glimpses / of the plain backbone", *(f"batch {batch}" for batch in batches)]
    return [*table(columns, rows), "", told, *circumstances(result)]


def inference(result: Result) -> list[str]:
    """A row a candidate and batch size."""
    rows = [
        [
            f"{row['what']}, {row['mode']}",
            str(row["batch"]),
            milliseconds(row),
            f"{row['share_of_roofline']:.0%}",
            f"{row['peak_mb']:.0f}",
        ]
        for row in result["inference"]
    ]
    return [*table(["", "batch", "ms", "of possible", "peak MB"], rows), *circumstances(result)]


def training(result: Result) -> list[str]:
    """A row a way to compute the step."""
    rows = [
        [
            row["mode"],
            str(row["batch"]),
            milliseconds(row),
            f"{1 / row['ratio']:.2f}",
            f"{row['share_of_roofline']:.0%}",
            f"{row['peak_mb']:.0f}",
        ]
        for row in result["training"]
    ]
    roofline = result["roofline"]
    possible = f"Possible: {roofline['gflops']:.0f} GFLOP/s ({result['precision']}), {roofline['gb_per_s']:.1f} GB/s."
    columns = ["step", "batch", "ms", "times as fast", "of possible", "peak MB"]
    return [*table(columns, rows), "", possible, *circumstances(result)]


def convolutions(result: Result) -> list[str]:
    """A row a convolution: how fast each of its passes runs, in both precisions."""
    ways, precisions = ("forward", "input gradient", "weight gradient"), ("float32", "bfloat16")
    rows = [
        ["{} to {}, {} px, kernel {}, stride {}".format(*row["shape"]), str(row["calls"])]
        + [" / ".join(f"{row[name][way]['gflops']:.0f}" for way in ways) for name in precisions]
        for row in result["convolutions"]
    ]
    columns = ["convolution", "calls", *(f"GFLOP/s, {name}: {', '.join(ways)}" for name in precisions)]
    step, best = result["step"], result["best_gflops"]
    told = []
    for name in precisions:
        now, least = step["ms"][name], step["least_ms"][name]
        told.append(
            f"{name}: convolutions take {now:.0f} ms a step, and would take {least:.0f} ms if all ran at the best"
        )
        told.append(f"that was seen, {best[name]:.0f} GFLOP/s.")
    return [*table(columns, rows), "", *told, *circumstances(result)]


def learning(result: Result) -> list[str]:
    """Mean losses over stretches of the run."""
    losses = result["losses"]
    steps = len(losses["reference"])
    stretch = max(1, steps // 5)
    starts = range(0, steps - stretch + 1, stretch)
    rows = [
        [name, *(f"{sum(values[start : start + stretch]) / stretch:.3f}" for start in starts)]
        for name, values in losses.items()
    ]
    columns = ["mean loss of steps", *(f"{start + 1}-{start + stretch}" for start in starts)]
    return [*table(columns, rows), "", f"`fast` computes in {result['precision']}.", *circumstances(result)]


def scaling(result: Result) -> list[str]:
    """A row a case, the plain backbone beside it; then from where on glimpses pay."""
    rows = [
        [
            f"{row['varied']} {row['value']}",
            str(row["batch"]),
            ratio(row),
            milliseconds(row),
            milliseconds(row["plain"]),
            *(f"{cost['flops'] / 1e9:.1f}" for cost in (row, row["plain"])),
            *(f"{cost['peak_mb']:.0f}" for cost in (row, row["plain"])),
            f"{row['image_mb']:.1f}",
        ]
        for row in result["rows"]
    ]
    columns = ["", "batch", "x plain", "ms", "plain ms", "GFLOPs", "plain GFLOPs", "peak MB", "plain peak MB"]
    pays = "; ".join(f"batch {row['batch']}: {pays_from(row)}" for row in result["break_even"])
    told = f"Both {result['mode']}, {result['repetitions']} repetitions."
    told += f" Glimpses take less time (upper quartile below 1) at {pays}."
    return [*table([*columns, "images MB"], rows), "", told, *circumstances(result)]


def pays_from(row: Result) -> str:
    """Of one batch size, the images on which glimpses take less time."""
    return "at none of these sizes" if row["image_size"] is None else f"from {row['image_size']} px on"


def early_exit(result: Result) -> list[str]:
    """A row a rule, then the plain backbones: means over seeds."""
    batches = [time["batch"] for time in result["candidates"][0]["times"]]
    rows = [
        [
            row["candidate"],
            spread(row["accuracies"], "{:.4f}"),
            each([100 * fall for fall in row["falls"]], "{:.2f}"),
            f"{row['mean_glimpses']:.2f}",
            f"{row['flops'] / 1e6:.1f}",
            *(f"{time['ms']:.2f} ({each(time['ratios'], '{:.2f}')})" for time in row["times"]),
        ]
        for row in result["candidates"]
    ]
    columns = ["", "accuracy", "points below all glimpses, each seed", "glimpses", "MFLOPs"]
    columns += [f"ms at batch {batch} (x all glimpses, each seed)" for batch in batches]
    told = f"{result['images']} images of {result['split']}, thresholds from val; times of {result['timed_images']}"
    told += f" of them, medians of {result['repetitions']} blocks; means over seeds."
    return [*table(columns, rows), "", told, *circumstances(result)]


def pipeline(result: Result) -> list[str]:
    """Images a second to each stage, and waiting beside training."""
    decoding = table(
        ["reader", "to", "images/s a core"],
        [[row["reader"], row["stage"], f"{row['images_per_second']:.0f}"] for row in result["decoding"]],
    )
    loading = table(
        ["workers", "images/s alone", "images/s while training", "share of waiting"],
        [
            [
                str(row["workers"]),
                f"{row['images_per_second']:.0f}",
                f"{row['training_images_per_second']:.1f}",
                f"{row['share_of_waiting']:.1%}",
            ]
            for row in result["loading"]
        ],
    )
    ways = [name for name in result["cores"][0] if name != "rate"]
    cores = table(
        ["cores for images/s", *(str(row["rate"]) for row in result["cores"])],
        [[way, *(f"{row[way]:.0f}" for row in result["cores"])] for way in ways],
    )
    photos = result["photos"]
    size = f"JPEGs of {photos['mean_megapixels']:.2f} megapixels, {photos['mean_kilobytes']:.0f} kB."
    return [*decoding, "", *loading, "", *cores, "", size, *circumstances(result)]


def pixels(result: Result) -> list[str]:
    """A row a mode of files: how far two libraries are apart, and what listening to libtiff costs."""
    rows = [
        [
            row["files"],
            f"`{row['mode']}`",
            row["tolerance"]["why"],
            f"{row['mean']:.3f}",
            str(row["most"]),
            f"{row['tolerance']['most']}",
        ]
        for row in result["rows"]
    ]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    noise = result["noise"]
    cost = (
        f"Listening to libtiff costs {noise['listening_us']} µs an image, decoding a TIFF file of 128 x 128 pixels"
        f" {noise['decoding_128_px_us']:.0f} µs. {versions}."
    )
    columns = ["files", "mode", "expected", "mean difference", "largest", "tolerated"]
    return [*table(columns, rows, words=3), "", cost, *circumstances(result)]


def localization(result: Result) -> list[str]:
    """A row a method, the best first: mean and deviation over seeds, and where its windows came to lie."""
    rows = [
        [
            f"`{name}`",
            method["what"],
            spread(method["accuracies"]),
            each(method["accuracies"]),
            f"{method['accuracy_by_glimpse'][0]:.3f}",
            f"{method['found_rate'][1]:.3f} / {method['found_rate'][-1]:.3f}",
            f"{method['random']:.3f}",
            optional(method["oracle"], "{:.3f}"),
            optional(method["gap_closed"], "{:.0%}"),
        ]
        for name, method in sorted(result["methods"].items(), key=lambda item: -item[1]["accuracy"])
    ]
    columns = ["method", "what", "accuracy", "of each seed", "first glimpse", "found by glimpse 2 / 4"]
    columns += ["random", "oracle", "gap to oracle closed"]
    return [*table(columns, rows, words=2), *circumstances(result)]


def whole_image(result: Result) -> list[str]:
    """Policies with the same weights; then the plain backbone on the whole image."""
    looks, plain = result["glimpses"], result["whole-image"]
    share = f"{result['share_of_flops']:.1%}"
    rows = [["**learned windows**", spread(looks["accuracies"]), each(looks["accuracies"]), share]]
    policies = {"random": "random windows", "center": "central windows", "oracle": "true windows"}
    for name, what in (policies | {"none": "first glimpse"}).items():
        rows.append([f"{what}, same weights", f"{looks[name]:.3f}", "", ""])
    rows.append(["whole image, plain backbone", spread(plain["accuracies"]), each(plain["accuracies"]), "100%"])
    mean, low, high = (result["difference"][name] for name in ("mean", "low", "high"))
    told = f"Glimpses less whole image: {mean:+.3f} ({low:+.3f} to {high:+.3f}; 95%, paired over {result['photos']}"
    found = " / ".join(f"{rate:.2f}" for rate in looks["found_rate"][1:])
    told += f" photos). The evidence was found by glimpse 2 / 3 / 4 in {found}."
    columns = ["policy", "accuracy", "of each seed", "FLOPs"]
    return [*table(columns, rows), "", told, *circumstances(result)]


def optional(value: float | None, text: str) -> str:
    """The value, or a dash for None."""
    return "-" if value is None else text.format(value)


def each(values: Sequence[float], form: str = "{:.3f}") -> str:
    """Every seed's own."""
    return " ".join(form.format(value) for value in values)


def spread(values: Sequence[float], form: str = "{:.3f}") -> str:
    """Mean and standard deviation over seeds; the mean alone of one."""
    deviation = f" ± {form.format(statistics.stdev(values))}" if len(values) > 1 else ""
    return f"**{form.format(statistics.fmean(values))}**{deviation}"


def reproduction(result: Result) -> list[str]:
    """Accuracy beside the paper's, and how all rows were measured."""
    columns, *rows = accuracy_table(result["rows"])
    steps = f"{result['data']}, {result['images']} images; {result['steps']} optimiser steps a run."
    return [*table(columns, rows), "", steps, *circumstances(result)]


def from_report(make: Callable[[Result], list[list[str]]], entry: str) -> Callable[[Result], list[str]]:
    """Another table of ``glimpsenet reproduce``, of one entry of its JSON."""

    def write(result: Result) -> list[str]:
        columns, *rows = make(result[entry])
        return table(columns, rows)

    return write


def robustness(result: Result) -> list[str]:
    """A row an attack on the answer after all glimpses, a column a model."""
    models = {Path(model["model"]).name: model for model in result["models"]}
    told = {name: conditions(model) for name, model in models.items()}
    names = dict.fromkeys(condition for values in told.values() for condition in values)
    rows = [[name, *(values.get(name, "-") for values in told.values())] for name in names]
    protocol = result["protocol"]
    settings = f"{result['images']} images, changed by at most {result['eps'] * 255:g}/255; PGD of {protocol['steps']}"
    settings += f" steps and {protocol['restarts']} starts, {protocol['queries']} queries of Square; 95% intervals."
    failed = [f"{check['check']} ({Path(check['model']).name})" for check in result["masking"] if not check["passed"]]
    checks = f"Checks for masked gradients: {len(result['masking']) - len(failed)} of {len(result['masking'])} passed"
    checks += f"; failed: {'; '.join(failed)}." if failed else "."
    return [*table(["", *models], rows), "", settings, checks, *circumstances(result)]


def conditions(model: Result) -> dict[str, str]:
    """Condition -> accuracy of one model after its last glimpse, with interval."""

    def told(values: Result) -> str:
        low, high = values["interval"]
        return f"{values['accuracy']:.3f} ({low:.2f}-{high:.2f})"

    last = model["glimpses"]
    values = {"clean": told(model["clean"][-1])}
    values |= {row["attack"]: told(row) for row in model["attacks"] if row["glimpses"] == last}
    if model["worst_case"]:
        values["**worst of them**"] = told(model["worst_case"])
    if model["mean_under_corruptions"]:
        values["mean over corruptions"] = f"{model['mean_under_corruptions'][-1]:.3f}"
    return values


def interval(estimate: Result, form: str = "{:.2f}") -> str:
    """A value with its 95% interval."""
    value, low, high = (form.format(estimate[name]) for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def gradient_quality(result: Result) -> list[str]:
    """A row a generator, starting windows and parameter: models pooled, then each."""
    measures = {"wanted_sign": "wanted sign", "cosine": "cosine", "signal_to_noise": "signal to noise"}
    rows = []
    for around, named in result["quality"].items():
        for generator, quality in named.items():
            for parameter in ("s", "tx", "ty"):
                cells = [f"{around} windows", generator, parameter]
                for name in measures:
                    own = each([model[parameter][name]["value"] for model in quality["models"]], "{:.2f}")
                    cells += [interval(quality["pooled"][parameter][name]), own]
                rows.append(cells)
    columns = ["around", "sampling", "", *(cell for name in measures.values() for cell in (name, "each model"))]
    models = "; ".join(
        "seed {seed}: {oracle:.3f} with true windows, {none:.3f} without".format(**model, **model["accuracy"])
        for model in result["models"]
    )
    scenes = sum(last - first for first, last in (model["scenes"] for model in result["models"]))
    told = f"{scenes} scenes of {result['models'][0]['split']}, as many for each model. Accuracy of {models}."
    return [*table(columns, rows, words=3), "", told, *circumstances(result)]


def gradient_spectrum(result: Result) -> list[str]:
    """A row a scale."""
    rows = [
        [
            f"{row['scale']:g}",
            interval({**row, "value": row["mean"]}),
            each(row["models"], "{:.2f}"),
        ]
        for row in result["share"]
    ]
    columns = ["s", f"share below {result['wavelength']:g} px", "each model"]
    told = f"{result['scenes']} scenes a model, {result['points']} points, {result['points_per_pixel']} a pixel."
    return [*table(columns, rows), "", told, *circumstances(result)]


def photo_gradients(result: Result) -> list[str]:
    """A row a photo and parameter: ranges over the scales."""
    rows = []
    for photo, parameter in dict.fromkeys((row["photo"], row["parameter"]) for row in result["sweeps"]):
        sweeps = [row for row in result["sweeps"] if (row["photo"], row["parameter"]) == (photo, parameter)]
        widths = [row["basin_px"] for row in sweeps if "basin_px" in row]
        wanted = sum(row["wanted_sign"] for row in sweeps)
        cells = [Path(photo).stem, parameter, between([row["r_squared"] for row in sweeps], "{:.3f}")]
        rows.append([*cells, f"{wanted} of {len(sweeps)}", between(widths, "{:.0f}") if widths else "-"])
    columns = ["photo", "", "R²", "sweeps with the wanted sign", "width of the basin (px)"]
    return [*table(columns, rows, words=2), *circumstances(result)]


def between(values: Sequence[float], form: str) -> str:
    """The least and the greatest."""
    return " to ".join(dict.fromkeys(form.format(value) for value in (min(values), max(values))))


def inspected(kind: str) -> Callable[[Result], list[str]]:
    """Runs whose localization statistics were compared: a row a setting, every seed's own."""

    def write(result: Result) -> list[str]:
        compared = result[kind]
        names = [name for name in next(iter(compared.values()))[0] if name != "seed"]
        rows = [
            [setting, *(each([run[name] for run in runs], "{:.3g}") for name in names)]
            for setting, runs in compared.items()
        ]
        columns = [kind.replace("_", " "), *(name.replace("_", " ") for name in names)]
        return [*table(columns, rows), *circumstances(result)]

    return write


def of(file: str, write: Callable[[Result], list[str]], *required: str) -> Callable[[Results], list[str]]:
    """A table of one file, which must have the required keys."""
    return lambda results: write(results.read(file, *required))


TABLES: dict[str, Callable[[Results], list[str]]] = {
    "speed-ratios": of("speed-resnet18.json", speed_ratios, "ratios"),
    "inference": of("speed-resnet18.json", inference),
    "training": of("speed-resnet18.json", training),
    "training-bfloat": of("speed-resnet18-bfloat16.json", training),
    "convolutions": of("speed-convolutions.json", convolutions),
    "learning": of("speed-learning.json", learning),
    "scaling": of("speed-scaling.json", scaling, "break_even"),
    "early-exit": of("speed-early-exit.json", early_exit, *SAID),
    "pixels": of("pixels.json", pixels),
    "pipeline": of("speed-pipeline.json", pipeline),
    "localization-digits": of("localization-digits.json", localization, *SAID),
    "localization-digits-fifth": of("localization-digits-fifth.json", localization, *SAID),
    "localization-digits-far": of("localization-digits-far.json", localization, *SAID),
    "localization-digits-short": of("localization-digits-short.json", localization),
    "whole-image-traffic-signs": of("whole-image-traffic-signs.json", whole_image, *SAID),
    "gradient-quality": of("gradient-quality.json", gradient_quality, "models"),
    "gradient-spectrum": of("gradient-spectrum.json", gradient_spectrum),
    "photo-gradients": of("photo-gradients.json", photo_gradients),
    "gradient-factor": of("inspection.json", inspected("gradient_factor")),
    "auxiliary-weight": of("inspection.json", inspected("auxiliary_weight")),
    "robustness-digits": of("robustness-digits-seed-0.json", robustness),
    "robustness-traffic-signs": of("robustness-traffic-signs-seed-0.json", robustness),
    "reproduction-accuracy": of(REPORT, reproduction, *SAID),
    "reproduction-settings": of(REPORT, from_report(settings_table, "settings"), *SAID),
    "reproduction-windows": of(REPORT, from_report(window_table, "rows"), *SAID),
    "reproduction-gain": of(REPORT, from_report(gain_table, "rows"), *SAID),
}
"""What stands between ``<!-- figures: NAME -->`` and ``<!-- end of figures -->``."""
