"""The figure of ``bench robustness``: attacks, numbers of glimpses, corruptions."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from glimpsenet.inspection.figures import label

LONGEST = 40
"""Most characters of a run's folder in a legend."""

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
"""One per model, from the palette of all figures."""
ATTACK_NAMES = {
    "clean": "none",
    "mgnet": "MGNet's PGD",
    "pgd": "PGD",
    "score": "PGD by\nscores",
    "autoattack": "AutoAttack,\nwhite box",
    "square": "Square",
    "worst": "worst of all",
}


def plot_robustness(result: dict[str, Any]) -> Figure:
    """Plot accuracy under each attack with 95% intervals, per number of glimpses, and under each corruption."""
    figure = Figure(figsize=(11.5, 7.2), layout="constrained")
    above, below = figure.subfigures(2, 1, squeeze=False)[:, 0]
    attacks, counts = above.subplots(1, 2, width_ratios=[1.7, 1])
    _plot_attacks(attacks, result)
    _plot_counts(counts, result)
    if result["models"][0]["corruptions"]:
        _plot_corruptions(below.subplots(1, 1), result)
    return figure


def _of_last(model: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Attack -> its entry, for the answer after all glimpses."""
    entries = {"clean": model["clean"][-1]}
    entries |= {entry["attack"]: entry for entry in model["attacks"] if entry["glimpses"] == model["glimpses"]}
    return entries | ({"worst": model["worst_case"]} if model["worst_case"] else {})


def _plot_attacks(axes: Axes, result: dict[str, Any]) -> None:
    models = result["models"]
    names = [name for name in ATTACK_NAMES if any(name in _of_last(model) for model in models)]
    width = 0.8 / len(models)
    for place, model in enumerate(models):
        entries = _of_last(model)
        here = [number for number, name in enumerate(names) if name in entries]
        values = [entries[names[number]]["accuracy"] for number in here]
        bounds = np.array([entries[names[number]]["interval"] for number in here]).T
        at = np.array(here) - 0.4 + (place + 0.5) * width
        spread = np.abs(bounds - np.array(values))
        axes.bar(at, values, width * 0.92, color=COLORS[place % len(COLORS)], label=_end(model["model"]))
        axes.errorbar(at, values, yerr=spread, fmt="none", ecolor="black", elinewidth=1, capsize=2)
    axes.set_xticks(range(len(names)), [ATTACK_NAMES[name] for name in names], fontsize=8)
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("accuracy")
    axes.set_title(
        f"under attack, eps = {255 * result['eps']:g}/255, {result['images']} images; lines: 95%", fontsize=10
    )
    axes.legend(fontsize=8)
    axes.grid(axis="y", alpha=0.3)


def _plot_counts(axes: Axes, result: dict[str, Any]) -> None:
    for place, model in enumerate(result["models"]):
        color = COLORS[place % len(COLORS)]
        lines = {"clean": [entry["accuracy"] for entry in model["clean"]]}
        for attack in ("mgnet", "pgd"):
            found = {entry["glimpses"]: entry["accuracy"] for entry in model["attacks"] if entry["attack"] == attack}
            if found:
                lines[attack] = [found[count] for count in sorted(found)]
        if model["mean_under_corruptions"]:
            lines["corrupted"] = model["mean_under_corruptions"]
        for (name, values), style in zip(lines.items(), ("-", ":", "--", "-."), strict=False):
            told = {"clean": "clean", "corrupted": "corrupted, mean"}.get(name, ATTACK_NAMES.get(name, name))
            axes.plot(
                range(1, len(values) + 1),
                values,
                f"o{style}",
                color=color,
                markersize=4,
                label=told if place == 0 else None,
            )
    axes.set_xlabel("glimpses")
    axes.set_xticks(range(1, max(model["glimpses"] for model in result["models"]) + 1))
    axes.set_ylim(0, 1.02)
    axes.set_title("after each number of glimpses", fontsize=10)
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)


def _plot_corruptions(axes: Axes, result: dict[str, Any]) -> None:
    models = result["models"]
    names = list(dict.fromkeys(entry["corruption"] for entry in models[0]["corruptions"]))
    width = 0.8 / len(models)
    for place, model in enumerate(models):
        means, lows, highs = [], [], []
        for name in names:
            values = [entry["accuracy"][-1] for entry in model["corruptions"] if entry["corruption"] == name]
            means.append(float(np.mean(values)))
            lows.append(min(values))
            highs.append(max(values))
        at = np.arange(len(names)) - 0.4 + (place + 0.5) * width
        axes.bar(at, means, width * 0.92, color=COLORS[place % len(COLORS)], label=_end(model["model"]))
        axes.vlines(at, lows, highs, color="black", linewidth=1)
    axes.set_xticks(range(len(names)), [name.replace("_", "\n") for name in names], fontsize=8)
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("accuracy")
    axes.set_title("under corruptions: mean over severities; lines: from the best severity to the worst", fontsize=10)
    axes.legend(fontsize=8)
    axes.grid(axis="y", alpha=0.3)


def _end(folder: str) -> str:
    """The end of a long path, which distinguishes runs."""
    return label(folder if len(folder) <= LONGEST else f"…{folder[1 - LONGEST :]}")
