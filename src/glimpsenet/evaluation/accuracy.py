"""Accuracy of a model under its own policy and under those it must beat, with the same weights.

    glimpse gain share = (learned - random) / (learned - none)

is the part of what glimpses bring that is due to *where* they were taken; 30% in the report.
"""

from collections.abc import Iterable
from typing import Any, Literal, get_args

import torch

from glimpsenet.data.sample import Batch
from glimpsenet.errors import MissingError, UnreadableImageError
from glimpsenet.evaluation.metrics import ScanpathMetrics
from glimpsenet.models.glimpsenet import GlimpseNet
from glimpsenet.policies.base import Policy, ScaleRange
from glimpsenet.policies.baselines import CenterGlimpses, OracleGlimpses, RandomGlimpses

PolicyName = Literal["learned", "random", "center", "none", "oracle"]
"""Who looks: the model's own policy, nobody after the first glimpse, or one of ``policies/baselines.py``."""


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
        policy: whose windows; a policy of your own is put into evaluation mode and must be on the model's device.
        scale_range: of the policies that do not learn.
        image_size: side of the images in pixels.
        classes: names of the classes.
        seed: of the random policy.
        skip_bad: list unreadable images under ``skipped`` instead of stopping.

    Returns:
        The dictionary of ``evaluate --json``: policy (its class's name, if it is your own), num_images, accuracy, loss,
        mean_scale, hit_rate, found_rate, window_mean, window_spread (lists, one entry a glimpse), per_class (of the
        answer), confusion_matrix (rows true, columns predicted; None for more than 1,000 classes), skipped.

    Raises:
        UserError: for an unreadable image, named, without ``skip_bad``; if there is none to evaluate on.
    """
    device = model.classifier.weight.device
    num_glimpses = 1 if policy == "none" else model.num_glimpses
    metrics = ScanpathMetrics(num_glimpses, len(classes), image_size, sync=False).to(device)
    custom = policy.eval() if isinstance(policy, Policy) else None
    random = RandomGlimpses(scale_range, seed)
    skipped: list[str] = []
    model.eval()
    for batch in batches:
        if batch.problems and not skip_bad:
            raise UnreadableImageError(f"{batch.problems[0]}; remove the file or skip unreadable images")
        skipped += batch.problems
        if len(batch.images) == 0:
            continue
        batch = batch._replace(**{name: getattr(batch, name).to(device) for name in ("images", "labels", "boxes")})
        looks: Policy | None = custom
        if isinstance(policy, str):
            looks = {
                "random": lambda: random,
                "center": lambda: CenterGlimpses(scale_range, model.generator.glimpse_size),
                "oracle": lambda boxes=batch.boxes: OracleGlimpses(scale_range, boxes),
            }.get(policy, lambda: None)()
        with torch.inference_mode():
            output = model(model.normalization(batch.images), policy=looks, num_glimpses=num_glimpses)
            metrics.update(output, batch)
    if not metrics.per_class.any():
        raise MissingError(f"nothing to evaluate on: {skipped[0] if skipped else 'the data set is empty'}")
    per_class = metrics.right_per_class / metrics.per_class
    return {
        "policy": policy if isinstance(policy, str) else type(policy).__name__,
        **metrics.compute(),
        "per_class": {
            name: None if rate.isnan() else float(rate) for name, rate in zip(classes, per_class, strict=True)
        },
        "confusion_matrix": metrics.confusion.tolist() if metrics.confusable else None,
        "skipped": skipped,
    }


def evaluate_all(model: GlimpseNet, batches: Iterable[Batch], *, has_boxes: bool, **settings: Any) -> dict[str, Any]:
    """:func:`evaluate` under every policy (the oracle only with boxes), and the glimpse gain share.

    Returns:
        ``{"policies": {name: ...}, "gain_due_to_placement": share}``; the share is None where glimpses bring nothing.
    """
    names: list[PolicyName] = [name for name in get_args(PolicyName) if name != "oracle" or has_boxes]
    results = {name: evaluate(model, batches, policy=name, **settings) for name in names}
    learned, random, none = (results[name]["accuracy"][-1] for name in ("learned", "random", "none"))
    gain = learned - none
    return {"policies": results, "gain_due_to_placement": (learned - random) / gain if gain > 0 else None}
