"""What ``glimpsenet evaluate`` prints, from what it measured."""

from typing import Any

from glimpsenet.tables import Table, counted


def evaluation_table(results: dict[str, dict[str, Any]], split: str) -> Table:
    """Accuracy, scale and hits after each glimpse, of each policy."""
    glimpses = max(len(result["accuracy"]) for result in results.values())

    def cells(values: list[float] | None, skip_first: bool = False) -> list[str]:
        shown = [f"{value:.3f}" for value in values or []]
        if skip_first and shown:
            shown[0] = ""
        return shown + [""] * (glimpses - len(shown))

    rows: list[list[str]] = []
    for name, result in results.items():
        rows.append([f"{name}: accuracy", *cells(result["accuracy"])])
        if len(result["accuracy"]) > 1:
            rows.append(["  mean scale", *cells(result["mean_scale"])])
            if result["hit_rate"] is not None:
                rows.append(["  hit rate", *cells(result["hit_rate"], skip_first=True)])
                rows.append(["  found so far", *cells(result["found_rate"], skip_first=True)])
    images = next(iter(results.values()))["num_images"]
    return Table(counted(images, f"{split} image"), ["policy", *(f"glimpse {t}" for t in range(1, glimpses + 1))], rows)


def gain_line(results: dict[str, dict[str, Any]], placement: float | None) -> str | None:
    """What of the glimpses' gain is due to where the model looked; None if that was not measured."""
    learned, none = (results[name]["accuracy"][-1] if name in results else 0.0 for name in ("learned", "none"))
    if "none" in results and learned - none < 0.01:
        return f"glimpses bring {100 * (learned - none):+.1f} points: too little to ask where they come from"
    elif placement is not None:
        return f"share of the glimpses' gain due to placement: {placement:.0%}"
    return None


def class_table(result: dict[str, Any], classes: list[str]) -> Table | None:
    """Accuracy per class, worst first, with what it is mostly taken for; None for too many classes."""
    matrix = result["confusion_matrix"]
    if matrix is None:
        return None
    rows: list[list[str]] = []
    for place in sorted(range(len(classes)), key=lambda place: (result["per_class"][classes[place]] or 0, place)):
        rate, counts = result["per_class"][classes[place]], matrix[place]
        if rate is None:
            continue
        wrong = sorted(((n, c) for c, n in enumerate(counts) if n and c != place), key=lambda pair: (-pair[0], pair[1]))
        taken = ", ".join(f"{classes[column]} ({count})" for count, column in wrong[:3])
        rows.append([classes[place], f"{rate:.3f}", str(sum(counts)), taken])
    title = f"per class ({result['policy']}), worst first"
    if len(rows) > 20:
        title += f"; 20 of {len(rows)}"
    return Table(title, ["class", "accuracy", "images", "mostly taken for"], rows[:20])
