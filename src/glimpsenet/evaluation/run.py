"""A run measured on its held-out images, under its own policy and others."""

from pathlib import Path
from typing import Any, Literal

from glimpsenet.data.loading import InOrder, create_loader, open_data, workers_that_die
from glimpsenet.data.sample import Split
from glimpsenet.errors import UserError
from glimpsenet.evaluation import accuracy
from glimpsenet.policies.baselines import PolicyName
from glimpsenet.runs import Run


def evaluate_run(
    run: Run,
    policy: PolicyName | Literal["all"] = "learned",
    *,
    data: Path | None = None,
    split: Split | None = None,
    batch_size: int = 64,
    workers: int = 0,
    seed: int = 0,
    skip_bad: bool = False,
) -> dict[str, Any]:
    """Accuracy of a run.

    Args:
        run: from :func:`~glimpsenet.runs.run.load_run`; measured on its model's device.
        policy: who looks; all of them for "all".
        data: another folder with val/CLASS/*.jpg (and test/CLASS/*.jpg, boxes.csv).
        split: images to measure on; test if None and there are any.
        batch_size: images at a time.
        workers: processes that read images.
        seed: of random windows.
        skip_bad: list unreadable images instead of stopping.

    Returns:
        The dictionary of ``evaluate --json``: :func:`~glimpsenet.evaluation.accuracy.evaluate`'s, or, for "all",
        :func:`~glimpsenet.evaluation.accuracy.evaluate_all`'s, and the ``split``.

    Raises:
        UserError: for data that cannot be measured on, naming what is wrong.
    """
    config = run.config if data is None else run.config.with_data(data)
    name, images = open_data(config, run.classes, run.channels).held_out(split)
    if policy == "oracle" and not images.has_boxes:
        raise UserError(f"the oracle needs to know where to look: there is no boxes.csv for the {name} images")
    loader = create_loader(images, InOrder(len(images)), batch_size, workers=workers)
    settings: dict[str, Any] = {
        "scale_range": config.model.scale_range,
        "image_size": config.model.image_size,
        "classes": run.classes,
        "seed": seed,
        "skip_bad": skip_bad,
    }
    with workers_that_die():
        if policy == "all":
            result = accuracy.evaluate_all(run.model, loader, has_boxes=images.has_boxes, **settings)
        else:
            result = accuracy.evaluate(run.model, loader, policy=policy, **settings)
    return {**result, "split": name}
