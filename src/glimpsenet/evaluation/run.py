"""A run measured on its held-out images, under its own policy and others."""

from typing import Any, Literal

from glimpsenet.data.loading import InOrder, create_loader, open_data, workers_that_die
from glimpsenet.errors import MissingError
from glimpsenet.evaluation import accuracy
from glimpsenet.evaluation.config import EvaluationSettings
from glimpsenet.policies.baselines import PolicyName
from glimpsenet.runs import Run


def evaluate_run(
    run: Run, policy: PolicyName | Literal["all"] = "learned", settings: EvaluationSettings | None = None
) -> dict[str, Any]:
    """Accuracy of a run.

    Args:
        run: from :func:`~glimpsenet.runs.run.load_run`; measured on its model's device.
        policy: whose windows; all policies for "all".
        settings: images, and how they are read.

    Returns:
        The dictionary of ``evaluate --json``: :func:`~glimpsenet.evaluation.accuracy.evaluate`'s, or, for "all",
        :func:`~glimpsenet.evaluation.accuracy.evaluate_all`'s, and the ``split``.

    Raises:
        UserError: for data that cannot be measured on, naming what is wrong.
    """
    settings = settings or EvaluationSettings()
    config = run.config if settings.data is None else run.config.with_data(settings.data)
    name, images = open_data(config, run.classes, run.channels).held_out(settings.split)
    if policy == "oracle" and not images.has_boxes:
        raise MissingError(f"the oracle needs boxes: there is no boxes.csv for the {name} images")
    loader = create_loader(images, InOrder(len(images)), settings.batch_size, workers=settings.workers)
    chosen: dict[str, Any] = {
        "scale_range": config.model.scale_range,
        "image_size": config.model.image_size,
        "classes": run.classes,
        "seed": settings.seed,
        "skip_bad": settings.skip_bad,
    }
    with workers_that_die():
        if policy == "all":
            result = accuracy.evaluate_all(run.model, loader, has_boxes=images.has_boxes, **chosen)
        else:
            result = accuracy.evaluate(run.model, loader, policy=policy, **chosen)
    return {**result, "split": name}
