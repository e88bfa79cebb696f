"""Tables that ``glimpsenet bench`` prints from its results."""

from typing import Any

from glimpsenet.tables import Table


def method_table(methods: dict[str, Any]) -> Table:
    """``bench localization``: methods, best first."""

    def number(value: float | None, form: str = "{:.3f}") -> str:
        return "-" if value is None else form.format(value)

    return Table(
        "accuracy after the last glimpse, means over seeds",
        ["method", "accuracy", "worst seed", "random", "oracle", "gap closed", "found", "to mgnet's", "seconds"],
        [
            [
                name,
                number(values["accuracy"]),
                number(min(values["accuracies"])),
                number(values["random"]),
                number(values["oracle"]),
                number(values["gap_closed"], "{:.0%}"),
                number(values["found_rate"][-1] if values["found_rate"] else None),
                number(values["steps_to_reference"], "{} steps"),
                number(values["seconds"], "{:.0f}"),
            ]
            for name, values in sorted(methods.items(), key=lambda item: -item[1]["accuracy"])
        ],
    )


def ratio_table(title: str, result: dict[str, Any]) -> Table:
    """``bench speed``: ratios, one row per mode and batch; below 1, glimpses take less time."""
    rows = [[row["mode"], str(row["batch"]), *_ratio(row)] for row in result["ratios"]]
    return Table(f"{title}, {result['repetitions']} repetitions", ["mode", "batch", "x plain", "quartiles"], rows)


def speed_tables(target: str, result: dict[str, Any]) -> list[Table]:
    """``bench speed``: ratios to the plain backbone, then times of inference and of training steps."""
    precision = result["precision"]
    title = f"{target}: time of all glimpses relative to the plain backbone, both {precision}"
    parts = [part for part in ("inference", "training") if result[part]]
    return [ratio_table(title, result), *(speed_table(f"{target}: {p}, {precision}", result[p]) for p in parts)]


def speed_table(title: str, rows: list[dict[str, Any]]) -> Table:
    """One part of ``bench speed``; training steps also have ratios to the reference."""
    reference = ["x reference"] if "ratio" in rows[0] else []
    return Table(
        title,
        ["what", "mode", "batch", "ms", "quartiles", *reference, "of possible", "peak MB"],
        [
            [
                *(str(row[name]) for name in ("what", "mode", "batch")),
                *_times(row),
                *([f"{row['ratio']:.2f}"] if reference else []),
                f"{row['share_of_roofline']:.0%}",
                f"{row['peak_mb']:.1f}",
            ]
            for row in rows
        ],
    )


def scaling_table(title: str, result: dict[str, Any]) -> Table:
    """``bench scaling``: one row per measurement."""
    return Table(
        title,
        ["varied", "to", "batch", "x plain", "quartiles", "ms", "plain ms", "GFLOPs", "peak MB", "images MB"],
        [
            [
                row["varied"],
                *(str(row[name]) for name in ("value", "batch")),
                *_ratio(row),
                *(f"{timed['ms']:.2f}" for timed in (row, row["plain"])),
                f"{row['flops'] / 1e9:.2f}",
                *(f"{row[name]:.1f}" for name in ("peak_mb", "image_mb")),
            ]
            for row in result["rows"]
        ],
    )


def break_even_lines(result: dict[str, Any]) -> list[str]:
    """``bench scaling``: from which size on glimpses pay, one line per batch size."""
    lines = []
    for found in result["break_even"]:
        size = found["image_size"]
        pays = "do not pay at any of these sizes" if size is None else f"pay from {size} px on"
        lines.append(f"batch {found['batch']}: glimpses {pays}")
    return lines


def early_exit_table(result: dict[str, Any]) -> Table:
    """``bench early-exit``: means over the runs, and the accuracy of each."""
    batches = [time["batch"] for time in result["candidates"][0]["times"]]
    seeds = ", ".join(map(str, result["seeds"]))
    return Table(
        f"{result['images']} images ({result['split']}) not used for calibration, means over seeds {seeds}",
        ["", "accuracy", "of each seed", "glimpses", "MFLOPs", *(f"ms, batch {b} (x all)" for b in batches)],
        [
            [
                row["candidate"],
                f"{row['accuracy']:.4f}",
                " ".join(f"{accuracy:.4f}" for accuracy in row["accuracies"]),
                f"{row['mean_glimpses']:.2f}",
                f"{row['flops'] / 1e6:.1f}",
                *(f"{time['ms']:.3f} ({time['ratio']:.2f})" for time in row["times"]),
            ]
            for row in result["candidates"]
        ],
    )


def _times(row: dict[str, Any]) -> list[str]:
    return [f"{row['ms']:.2f}", "{:.2f}-{:.2f}".format(*row["ms_quartiles"])]


def _ratio(row: dict[str, Any]) -> list[str]:
    return [f"{row['ratio']:.2f}", "{:.2f}-{:.2f}".format(*row["ratio_quartiles"])]
