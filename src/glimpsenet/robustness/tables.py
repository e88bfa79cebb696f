"""Tables that ``glimpsenet bench robustness`` prints from its results."""

from typing import Any

from glimpsenet.tables import Table


def robustness_tables(result: dict[str, Any]) -> list[Table]:
    """Accuracy under attacks, and under corruptions if tested."""
    models = result["models"]
    conditions = list(dict.fromkeys((e["attack"], e["glimpses"]) for model in models for e in model["attacks"]))
    found = [{(e["attack"], e["glimpses"]): e for e in model["attacks"]} for model in models]

    def cell(entry: dict[str, Any] | None) -> str:
        return "-" if entry is None else "{:.3f} ({:.3f}-{:.3f})".format(entry["accuracy"], *entry["interval"])

    names = [model["model"] for model in models]
    most = max(model["glimpses"] for model in models)
    clean = [
        [f"none, {t} glimpses", *(cell(m["clean"][t - 1] if t <= m["glimpses"] else None) for m in models)]
        for t in range(1, most + 1)
    ]
    attacked = [
        [f"{name}, {count} glimpses", *(cell(one.get((name, count))) for one in found)] for name, count in conditions
    ]
    worst = [["worst of all in pixel space", *(cell(model["worst_case"]) for model in models)]]
    title = f"{result['images']} images, eps {255 * result['eps']:g}/255: accuracy (95%)"
    tables = [Table(title, ["attack", *names], clean + attacked + (worst if conditions else []))]
    if models[0]["corruptions"]:
        kinds = list(dict.fromkeys(entry["corruption"] for entry in models[0]["corruptions"]))
        rows = [[kind, *(f"{_mean_under(model, kind):.3f}" for model in models)] for kind in kinds]
        rows.append(["mean", *(f"{model['mean_under_corruptions'][-1]:.3f}" for model in models)])
        tables.append(Table("under corruptions, mean over severities", ["corruption", *names], rows))
    return tables


def robustness_lines(result: dict[str, Any]) -> list[str]:
    """Differences between models, and checks for masked gradients."""
    lines = []
    for difference in result["differences"]:
        for name, value in difference.items():
            if isinstance(value, dict):
                low, high = value["interval"]
                lines.append(
                    f"{name}: {difference['model']} is {100 * value['difference']:+.1f} points"
                    f" ({100 * low:+.1f} to {100 * high:+.1f}) from {difference['than']}"
                )
    for check in result["masking"]:
        verdict = "passed" if check["passed"] else "FAILED: do not trust the white-box accuracy"
        lines.append(
            f"{check['model']}: {check['check']}: {check['accuracy']:.3f} against {check['white_box']:.3f}, {verdict}"
        )
    return lines


def _mean_under(model: dict[str, Any], corruption: str) -> float:
    values = [entry["accuracy"][-1] for entry in model["corruptions"] if entry["corruption"] == corruption]
    return sum(values) / len(values)
