"""The reproduction report: the paper's table next to ours, as report.json, report.md and self-contained report.html."""

import base64
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glimpsenet import runs
from glimpsenet.files import write_aside, write_json
from glimpsenet.inspection.figures import save_figure
from glimpsenet.provenance import common_machine
from glimpsenet.recipes import PAPER
from glimpsenet.reproduction.figures import plot_rows, plot_scanpaths_by_row
from glimpsenet.reproduction.rows import OURS, REPORTED, WHOLE, Setting
from glimpsenet.tables import Table
from glimpsenet.templates import render
from glimpsenet.training.series import Record

PAPER_BASELINE, PAPER_RANDOM, PAPER_NONE = 83.99, 81.33, 75.2


@dataclass(frozen=True)
class Section:
    """A heading, some text, and a table or a picture."""

    title: str
    text: str = ""
    table: Sequence[Sequence[str]] = ()
    """First row: column names."""
    picture: Path | None = None

    def picture_data(self) -> str:
        """The picture file in base64."""
        assert self.picture is not None
        return base64.b64encode(self.picture.read_bytes()).decode()


def write_report(
    results: Mapping[str, Sequence[Record]], out: Path, setting: Setting, command: str | None = None
) -> dict[str, Any]:
    """Write the report on all rows' records, with scanpaths of rows whose runs are in OUT; returns report.json's
    content.
    """
    summary = {row: summarize(entries) for row, entries in results.items()}
    runs_found = [entry for entries in results.values() for entry in entries]
    first = runs_found[0]
    values = {
        "command": command,
        "data": setting.data.name if setting.data else "digit scenes",
        "split": first["evaluation"]["split"],
        "images": first["evaluation"]["policies"]["learned"]["num_images"],
        "rows": summary,
        "settings": {"report": REPORTED, "here": _settings(first["config"])},
        "steps": first["summary"]["steps"],
        "seconds": round(sum(entry["summary"]["seconds"] for entry in runs_found), 1),
        "seeds": sorted({entry["summary"]["seed"] for entry in runs_found}),
        "machine": common_machine([entry["summary"]["machine"] for entry in runs_found]),
    }
    out.mkdir(parents=True, exist_ok=True)
    save_figure(plot_rows(results), out / "rows.png")
    trained = {row: out / row / "seed-0" for row in results if (out / row / "seed-0" / runs.SUMMARY).exists()}
    if trained:
        save_figure(plot_scanpaths_by_row(trained), out / "scanpaths.png")
    sections = _sections(values, out)
    for name, text in {"report.md": to_markdown(sections), "report.html": to_html(sections)}.items():
        with write_aside(out / name) as aside:
            aside.write_text(text, encoding="utf-8")
    write_json(out / "report.json", values)
    return values


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """A row's settings under the names in REPORTED."""
    sizes = config["model"]
    return {name: config["training"][name] for name in REPORTED if name != "scale_factor"} | {
        "scale_factor": round(sizes["image_size"] / sizes["glimpse_size"], 2)
    }


def summarize(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over seeds for the tables, each seed's accuracy, and the standard deviation (None for one seed)."""
    policies = [entry["evaluation"]["policies"] for entry in entries]

    def mean(values: Sequence[float]) -> float:
        return statistics.fmean(values)

    last = [policy["learned"]["accuracy"][-1] for policy in policies]
    cost = entries[0]["summary"]["cost"]
    return {
        "seeds": len(last),
        "accuracy": mean(last),
        "accuracy_deviation": statistics.stdev(last) if len(last) > 1 else None,
        "accuracies": last,
        "first_glimpse": mean([policy["learned"]["accuracy"][0] for policy in policies]),
        **{
            name: mean([policy[name]["accuracy"][-1] for policy in policies])
            for name in ("random", "none", "oracle")
            if name in policies[0]
        },
        "hit_rate": None
        if policies[0]["learned"]["hit_rate"] is None
        else mean([policy["learned"]["hit_rate"][-1] for policy in policies]),
        "scales": [policy["learned"]["window_mean"][-1][0] for policy in policies],
        "window_mean": [mean([p["learned"]["window_mean"][-1][axis] for p in policies]) for axis in range(3)],
        "window_spread": [mean([p["learned"]["window_spread"][-1][axis] for p in policies]) for axis in range(3)],
        "parameters": cost["parameters"],
        "trainable_share": cost["trainable_parameters"] / cost["parameters"],
        "share_of_full_pass": cost["share_of_full_pass"],
    }


def _sections(values: dict[str, Any], out: Path) -> list[Section]:
    machine = values["machine"]
    circumstances = (
        f"{values['data']}, {values['images']} images of {values['split']}; {values['steps']} optimiser steps per run,"
        f" {values['seconds'] / 60:.0f} minutes of training in all, {machine['threads']} thread(s) of"
        f" {machine['cpu']}, {machine['device']}, torch {machine['torch']}, timm {machine['timm']}."
    )
    sections = [
        Section("The paper's Table 1, on other data", circumstances),
        Section(
            "Accuracy",
            "After the last glimpse, in percent: mean and standard deviation over seeds, then each seed. Differences"
            " are to the baseline of the same column. The paper's are on ImageNet100: compare columns by their"
            " differences.",
            accuracy_table(values["rows"]),
        ),
        Section(
            "Settings",
            "Differences from the report, or from MGNet's code if the report does not specify a setting. The scale"
            " factor is the baseline's; it is 7 in the s7 rows. AdamW replaces SGD where listed.",
            settings_table(values["settings"]),
        ),
        Section(
            "Where it looked",
            "Windows of the last glimpse over the validation images: mean scale s, and the spread (standard deviation"
            " over images) of s, tx, ty; 0 is one constant window. The paper: s = 0.96 of 0.99 for s7, 0.55 without the"
            " auxiliary loss, one central window.",
            window_table(values["rows"]),
        ),
        Section(
            "What the glimpses bring",
            "The same weights with learned, random, no and true (oracle) windows. Share: (learned - random) / (learned"
            " - none), the share of the gain due to placement; above 100% if random windows are worse than none.",
            gain_table(values["rows"]),
        ),
        Section(
            "Cost",
            "FLOPs after each glimpse, as a share of one full pass of the backbone.",
            _cost_table(values["rows"]),
        ),
        Section("Spread over seeds, and learning curves", picture=out / "rows.png"),
    ]
    if (out / "scanpaths.png").exists():
        sections.append(Section("Scanpaths of the same images, seed 0", picture=out / "scanpaths.png"))
    return sections


def settings_table(settings: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """The report's settings next to those of these runs."""
    rows = [[name, _plain(value), _plain(settings["here"][name])] for name, value in settings["report"].items()]
    return [["setting", "report", "here"], *rows]


def _plain(value: Any) -> str:
    return "none" if value is None else str(value)


def _difference(value: float, base: float | None) -> str:
    return "" if base is None else f"{value - base:+.2f}"


def accuracy_table(rows: Mapping[str, Any]) -> list[list[str]]:
    """The paper's accuracy, then mean, deviation and each seed, in percent; the first row names the columns."""
    base = 100 * rows["baseline"]["accuracy"] if "baseline" in rows else None
    table = [["row", "paper", "to baseline", "here", "to baseline", "each seed", "first glimpse", "trainable"]]
    for row, values in rows.items():
        paper, accuracy = PAPER[row][1] if row in PAPER else None, 100 * values["accuracy"]
        spread = "" if values["accuracy_deviation"] is None else f" ± {100 * values['accuracy_deviation']:.2f}"
        table.append(
            [
                {OURS: f"{row} (ours)", WHOLE: f"{row} (MGNet's comparator)"}.get(row, row),
                "" if paper is None else f"{paper:.2f}",
                "" if paper is None else _difference(paper, PAPER_BASELINE),
                f"{accuracy:.2f}{spread}",
                _difference(accuracy, base),
                " ".join(f"{100 * value:.1f}" for value in values["accuracies"]),
                f"{100 * values['first_glimpse']:.2f}",
                f"{values['trainable_share']:.0%}",
            ]
        )
    return table


def window_table(rows: Mapping[str, Any]) -> list[list[str]]:
    """Scale of the last window, spread of s, tx and ty over images, and hit rate."""
    table = [["row", "mean s", "of each seed", "spread of s", "spread of tx", "spread of ty", "hit rate"]]
    for row, values in rows.items():
        if row == WHOLE:
            continue
        hits = "" if values["hit_rate"] is None else f"{values['hit_rate']:.3f}"
        scales = " ".join(f"{scale:.2f}" for scale in values["scales"])
        spreads = (f"{spread:.3f}" for spread in values["window_spread"])
        table.append([row, f"{values['window_mean'][0]:.3f}", scales, *spreads, hits])
    return table


def gain_table(rows: Mapping[str, Any]) -> list[list[str]]:
    """Accuracy of the same weights with learned, random, no and true windows."""

    def share(learned: float, random: float, none: float) -> str:
        return f"{(learned - random) / (learned - none):.0%}" if learned - none > 0.005 else "no gain"

    paper = [PAPER_BASELINE / 100, PAPER_RANDOM / 100, PAPER_NONE / 100]
    table = [["row", "learned", "random", "none", "oracle", "share"]]
    table.append(["paper's baseline", *(f"{100 * v:.2f}" for v in paper), "", share(*paper)])
    for row, values in rows.items():
        if row == WHOLE:
            continue
        learned, random, none = values["accuracy"], values["random"], values["none"]
        oracle = f"{100 * values['oracle']:.2f}" if "oracle" in values else ""
        table.append([row, *(f"{100 * v:.2f}" for v in (learned, random, none)), oracle, share(learned, random, none)])
    return table


def _cost_table(rows: dict[str, Any]) -> list[list[str]]:
    glimpses = max(len(values["share_of_full_pass"] or []) for values in rows.values())
    table = [["row", *(f"{t} glimpses" for t in range(1, glimpses + 1)), "parameters"]]
    table.append(
        ["paper (ResNet-18, 96 of 224 px)", "18%", "37%", "55%", "74%", *[""] * (glimpses - 3)][: glimpses + 2]
    )
    for row, values in rows.items():
        shares = values["share_of_full_pass"] or [None] * glimpses
        table.append([row, *("" if s is None else f"{s:.0%}" for s in shares), f"{values['parameters']:,}"])
    return table


def to_markdown(sections: Sequence[Section]) -> str:
    """The report as GitHub Markdown, with pictures by name."""
    return render("report.md", sections=sections)


def to_html(sections: Sequence[Section]) -> str:
    """The report as one HTML file with embedded pictures."""
    return render("report.html", sections=sections)


def summary_table(report: dict[str, Any]) -> Table:
    """Table that ``glimpsenet reproduce`` prints, from :func:`write_report`'s numbers."""
    columns = ["row", "seeds", "here", "first glimpse", "random", "mean s"]
    rows = [
        [
            row,
            str(values["seeds"]),
            *(f"{values[name]:.3f}" for name in ("accuracy", "first_glimpse", "random")),
            f"{values['window_mean'][0]:.2f}",
        ]
        for row, values in report["rows"].items()
    ]
    return Table(f"accuracy after the last glimpse, {report['data']}", columns, rows)
