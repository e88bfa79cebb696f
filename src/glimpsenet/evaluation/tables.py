"""What ``glimpsenet evaluate`` prints, from what it measured."""

from typing import Any

from glimpsenet.errors import printable
from glimpsenet.tables import Table, counted

OPTIMISTIC = (
    "measured on val, which chose the checkpoint: expect less on new images; keep some in test/CLASS for a fair number"
)


def evaluation_report(result: dict[str, Any], classes: list[str]) -> list[Table | str]:
    """What ``glimpsenet evaluate`` prints, of :func:`~glimpsenet.evaluation.run.evaluate_run`'s result."""
    results = policies_of(result)
    shown = judged(result)
    skipped = shown["skipped"]
    noted = skipped and f"skipped {counted(len(skipped), 'unreadable image')}; the first: {printable(skipped[0])}"
    lines = [
        evaluation_table(results, result["split"]),
        gain_line(results, result.get("gain_due_to_placement")),
        OPTIMISTIC if result["split"] == "val" else None,
        noted,
        class_table(shown, classes) or f"the accuracy of each of {len(classes)} classes is in the JSON output",
    ]
    return [line for line in lines if line]


def training_report(summary: dict[str, Any]) -> list[Table | str]:
    """What ``glimpsenet train`` prints, of :func:`~glimpsenet.training.fit.fit`'s summary."""
    test, skipped = summary["test_metrics"], summary["skipped_images"]
    # While training, validation computes as training does, in bfloat16 where the device has it.
    best = f"best on validation, at step {summary['best_step']} of {summary['steps']}; measured in float32:"
    lines = [best, evaluation_table({"learned": summary["metrics"]}, "val")]
    if test is None:
        lines.append(OPTIMISTIC)
    else:
        lines += ["the same on the test images, which chose nothing:", evaluation_table({"learned": test}, "test")]
    if skipped:
        lines.append(f"skipped {counted(len(skipped), 'unreadable image')}, named in summary.json")
    return lines


def policies_of(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Policy -> what was measured under it, of one policy or of all."""
    return result.get("policies") or {result["policy"]: result}


def judged(result: dict[str, Any]) -> dict[str, Any]:
    """What was measured under the learned policy, or else under the only one."""
    results = policies_of(result)
    return results.get("learned") or next(iter(results.values()))


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
