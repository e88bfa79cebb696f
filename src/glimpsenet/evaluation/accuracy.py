"""Accuracy of a model under its own policy and under those it must beat, with the same weights.

    gain due to placement = (learned - random) / (learned - none)

is the part of what glimpses bring that is due to *where* they were taken; 30% in the report.
"""

from collections.abc import Iterable, Iterator
from typing import Any, get_args

import torch

from glimpsenet.data.sample import Batch
from glimpsenet.errors import MissingError, UnreadableImageError
from glimpsenet.evaluation.metrics import ScanpathMetrics
from glimpsenet.models.glimpsenet import GlimpseNet
from glimpsenet.policies.base import Policy, ScaleRange
from glimpsenet.policies.baselines import PolicyName, baseline_policy


def evaluate(
    model: GlimpseNet,
    batches: Iterable[Batch],
    *,
    policy: PolicyName | Policy = "learned",
    scale_range: ScaleRange,
    image_size: int,
    classes: list[str],
    seed: int = 0,
    skip_bad: bool = False,
) -> dict[str, Any]:
    """One deterministic pass over ``batches``, on the model's device.

    Args:
        model: put into evaluation mode.
        batches: from a loader; images not normalised.
        policy: whose windows; a custom policy is put into evaluation mode and must be on the model's device.
        scale_range: of the policies that do not learn.
        image_size: side of the images in pixels.
        classes: names of the classes.
        seed: of the random policy.
        skip_bad: list unreadable images under ``skipped`` instead of stopping.

    Returns:
        The dictionary of ``evaluate --json``: policy (the class's name of a custom one), num_images, accuracy, loss,
        mean_scale, hit_rate, found_rate, window_mean, window_spread (lists, one entry a glimpse), per_class (of the
        answer), confusion_matrix (rows true, columns predicted; None for more than 1,000 classes), skipped.

    Raises:
        UserError: for an unreadable image, named, without ``skip_bad``; if there is none to evaluate on.
    """
    num_glimpses = 1 if policy == "none" else model.num_glimpses
    metrics = ScanpathMetrics(num_glimpses, len(classes), image_size, sync=False).to(model.classifier.weight.device)
    skipped: list[str] = []
    chosen = policy.eval() if isinstance(policy, Policy) else None
    if isinstance(policy, str) and policy in ("random", "center"):
        chosen = baseline_policy(policy, scale_range, glimpse_size=model.generator.glimpse_size, seed=seed)
    for batch in _readable(batches, skipped, model.eval().classifier.weight.device, skip_bad):
        if policy == "oracle":
            chosen = baseline_policy("oracle", scale_range, boxes=batch.boxes)
        with torch.inference_mode():
            output = model(model.normalization(batch.images), policy=chosen, num_glimpses=num_glimpses)
            metrics.update(output, batch)
    if not metrics.per_class.any():
        raise MissingError(f"nothing to evaluate on: {skipped[0] if skipped else 'the data set is empty'}")
    name = policy if isinstance(policy, str) else type(policy).__name__
    return {"policy": name, **_report(metrics, classes), "skipped": skipped}


def _readable(batches: Iterable[Batch], skipped: list[str], device: torch.device, skip_bad: bool) -> Iterator[Batch]:
    """Batches that have an image, on ``device``; what could not be read is added to ``skipped``."""
    for batch in batches:
        if batch.problems and not skip_bad:
            raise UnreadableImageError(f"{batch.problems[0]}; remove the file or skip unreadable images")
        skipped += batch.problems
        if len(batch.images):
            yield batch._replace(**{name: getattr(batch, name).to(device) for name in ("images", "labels", "boxes")})


def _report(metrics: ScanpathMetrics, classes: list[str]) -> dict[str, Any]:
    rates = zip(classes, metrics.right_per_class / metrics.per_class, strict=True)
    return {
        **metrics.compute(),
        "per_class": {name: None if rate.isnan() else float(rate) for name, rate in rates},
        "confusion_matrix": metrics.confusion.tolist() if metrics.confusable else None,
    }


def evaluate_all(model: GlimpseNet, batches: Iterable[Batch], *, has_boxes: bool, **settings: Any) -> dict[str, Any]:
    """:func:`evaluate` under every policy (the oracle only with boxes), and the gain due to placement.

    Returns:
        ``{"policies": {name: ...}, "gain_due_to_placement": share}``; None where glimpses bring nothing.
    """
    names: list[PolicyName] = [name for name in get_args(PolicyName) if name != "oracle" or has_boxes]
    results = {name: evaluate(model, batches, policy=name, **settings) for name in names}
    learned, random, none = (results[name]["accuracy"][-1] for name in ("learned", "random", "none"))
    gain = learned - none
    return {"policies": results, "gain_due_to_placement": (learned - random) / gain if gain > 0 else None}
