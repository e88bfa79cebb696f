"""The tables of pages, made of results that lie in the repository: no figure in them is typed by hand.

A table stands between ``<!-- figures: NAME -->`` and ``<!-- end of figures -->``; it is written anew, from
``benchmarks/results/*.json``, or says that there is no measurement.

Command: ``python benchmarks/page_figures.py``; ``--check`` only tells whether the pages are up to date
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

PAGES = (Path("docs/speed.md"), Path("docs/localization.md"), Path("docs/reliability.md"))
RESULTS = Path("benchmarks/results")
MISSING = "Not measured yet."
Result = dict[str, Any]


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> list[str]:
    """In Markdown: the first columns, of words, left, the others right."""
    lines = [columns, [*["---"] * words, *["---:"] * (len(columns) - words)], *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def circumstances(result: Result) -> list[str]:
    """Where and how it was measured."""
    machine = result["machine"]
    where = f"{machine['device']} ({machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads)"
    versions = ", ".join(f"{name} {machine[name]}" for name in ("python", "torch", "torchvision", "timm"))
    return ["", f"`{result['command']}`; {where}; {versions}."]


def milliseconds(row: Result) -> str:
    """Median and quartiles."""
    low, high = row["ms_quartiles"]
    return f"{row['ms']:.1f} ({low:.1f}-{high:.1f})"


def inference(result: Result) -> list[str]:
    """A row a candidate and batch size, with the ratio to the plain backbone in eager and in its own mode."""
    rows = []
    plain = {(row["mode"], row["batch"]): row["ms"] for row in result["inference"] if row["what"] == "plain"}
    for row in result["inference"]:
        own = row["ms"] / plain[row["mode"], row["batch"]]
        rows.append(
            [
                f"{row['what']}, {row['mode']}",
                str(row["batch"]),
                milliseconds(row),
                f"{row['ratio']:.2f}",
                f"{own:.2f}",
                f"{row['share_of_roofline']:.0%}",
                f"{row['peak_mb']:.0f}",
            ]
        )
    columns = ["", "batch", "ms", "x plain, eager", "x plain, same mode", "of possible", "peak MB"]
    return [*table(columns, rows), *circumstances(result)]


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
    """A row a case."""
    rows = [
        [
            f"{row['varied']} {row['value']}",
            str(row["batch"]),
            milliseconds(row),
            f"{row['operations'] / 1e9:.1f}",
            f"{row['peak_mb']:.1f}",
            f"{row['image_mb']:.1f}",
        ]
        for row in result["rows"]
    ]
    columns = ["", "batch", "ms", "billion operations", "peak MB", "images MB"]
    return [*table(columns, rows), *circumstances(result)]


def early_exit(result: Result) -> list[str]:
    """A row a rule, then the plain backbones."""
    batches = [time["batch"] for time in result["candidates"][0]["times"]]
    rows = [
        [
            row["candidate"],
            f"{row['accuracy']:.4f}",
            f"{row['mean_looks']:.2f}",
            f"{row['operations'] / 1e6:.1f}",
            *(f"{time['ms']:.2f} ({time['ratio']:.2f})" for time in row["times"]),
        ]
        for row in result["candidates"]
    ]
    columns = ["", "accuracy", "looks", "million operations", *(f"ms at batch {b} (x all looks)" for b in batches)]
    return [*table(columns, rows), "", f"{result['images']} test images.", *circumstances(result)]


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


def localization(result: Result) -> list[str]:
    """A row a method, the best first."""

    def optional(value: float | None, text: str) -> str:
        return "-" if value is None else text.format(value)

    rows = [
        [
            f"`{name}`",
            method["what"],
            f"**{method['accuracy']:.3f}**",
            each(method["accuracies"]),
            f"{method['accuracy_by_step'][0]:.3f}",
            f"{method['found_rate'][1]:.3f} / {method['found_rate'][-1]:.3f}",
            f"{method['random']:.3f}",
            optional(method["oracle"], "{:.3f}"),
            optional(method["gain_share"], "{:.0%}"),
            optional(method["steps_to_reference"], "{} steps"),
            f"{method['seconds']:.0f}",
        ]
        for name, method in sorted(result["methods"].items(), key=lambda item: -item[1]["accuracy"])
    ]
    columns = ["method", "what", "accuracy", "of each seed", "first look", "found by step 2 / 4"]
    columns += ["random", "oracle", "gain share", "to mgnet's", "seconds"]
    return table(columns, rows, words=2)


def whole_image(result: Result) -> list[str]:
    """Who looks, with the same weights; then the plain backbone on the whole image."""
    looks, plain = result["glimpses"], result["whole-image"]
    share = f"{result['share_of_operations']:.1%}"
    rows = [["**learned places**", f"**{looks['accuracy']:.3f}**", each(looks["accuracies"]), share]]
    others = {"random places": "random", "the centre": "center", "true places": "oracle", "first look alone": "none"}
    rows += [[f"{who}, same weights", f"{looks[name]:.3f}", "", ""] for who, name in others.items()]
    rows.append(["whole image, plain backbone", f"{plain['accuracy']:.3f}", each(plain["accuracies"]), "100%"])
    mean, low, high = (result["difference"][name] for name in ("mean", "low", "high"))
    told = f"Glimpses less whole image: {mean:+.3f} ({low:+.3f} to {high:+.3f}; 95%, paired over photos)."
    found = " / ".join(f"{rate:.2f}" for rate in looks["found_rate"][1:])
    told += f" The evidence was found by step 2 / 3 / 4 in {found}."
    columns = ["who looks", "accuracy", "of each seed", "operations"]
    return [*table(columns, rows), "", told, *circumstances(result)]


def each(values: Sequence[float]) -> str:
    """Every seed's own."""
    return " ".join(f"{value:.3f}" for value in values)


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


FIGURES: dict[str, tuple[str, Callable[[Result], list[str]]]] = {
    "inference": ("speed-resnet18.json", inference),
    "training": ("speed-resnet18.json", training),
    "training-bfloat": ("speed-resnet18-bfloat16.json", training),
    "convolutions": ("speed-convolutions.json", convolutions),
    "learning": ("speed-learning.json", learning),
    "scaling": ("speed-scaling.json", scaling),
    "early-exit": ("speed-early-exit.json", early_exit),
    "pipeline": ("speed-pipeline.json", pipeline),
    "localization-digits": ("localization-digits.json", localization),
    "localization-digits-far": ("localization-digits-far.json", localization),
    "localization-digits-short": ("localization-digits-short.json", localization),
    "localization-digits-fifth": ("localization-digits-fifth.json", localization),
    "whole-image-traffic-signs": ("whole-image-traffic-signs.json", whole_image),
    "robustness-digits": ("robustness-digits-seed-0.json", robustness),
    "robustness-traffic-signs": ("robustness-traffic-signs-seed-0.json", robustness),
}


def fill(page: str, results: Path) -> str:
    """The page with every table written anew."""

    def figures(match: re.Match[str]) -> str:
        file, write = FIGURES[match["name"]]
        lines = write(json.loads((results / file).read_text())) if (results / file).exists() else [MISSING]
        return "\n".join([match["start"], "", *lines, "", match["end"]])

    pattern = r"(?P<start><!-- figures: (?P<name>[a-z-]+) -->)\n.*?(?P<end><!-- end of figures -->)"
    return re.sub(pattern, figures, page, flags=re.DOTALL)


def main() -> None:
    """Fill the pages, or check them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--results", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    for file in PAGES:
        page = file.read_text()
        filled = fill(page, chosen.results)
        if chosen.check and filled != page:
            sys.exit(f"{file} is not made of {chosen.results}: run {sys.argv[0]}")
        file.write_text(filled)


if __name__ == "__main__":
    main()
