"""Gradient quality of a run, over images of a data set (``quality.py`` says what it is)."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from glimpsenet.data.spread import read_spread
from glimpsenet.errors import SettingError, UserError, printable
from glimpsenet.inspection.gradients import by_name
from glimpsenet.inspection.photo import validation_images
from glimpsenet.inspection.quality import GradientQuality, gradient_quality
from glimpsenet.models.config import SamplingConfig
from glimpsenet.policies.baselines import baseline_policy
from glimpsenet.runs import Run
from glimpsenet.tables import counted

Around = Literal["learned", "random", "oracle"]


def run_quality(
    run: Run,
    generators: Sequence[str] = ("own",),
    *,
    data: Path | None = None,
    images: int = 50,
    glimpse: int = 2,
    points: int = 100,
    loss: str = "last",
    around: Around = "learned",
    seed: int = 0,
    tell: Callable[[str], None] = print,
) -> dict[str, GradientQuality]:
    """How useful the gradient of windows is, with each of several ways to sample them.

    Args:
        run: from :func:`~glimpsenet.runs.run.load_run`.
        generators: kinds of sampling; "own" is the run's.
        data: image folder with val/CLASS; the run's own validation images if None.
        images: how many, spread over classes.
        glimpse: whose window.
        points: of each sweep.
        loss: last, own, auxiliary or total; see :func:`~glimpsenet.inspection.gradients.by_name`.
        around: which windows: the model's, random ones, or the boxes.
        seed: of the choice of images, of random windows and of intervals.
        tell: is told what was left out and what is done.

    Returns:
        The run's folder, with the sampling in brackets unless it is its own -> the quality.

    Raises:
        UserError: for data or settings that cannot be measured with.
    """
    batch = read_spread(validation_images(run, data), images, seed)
    if batch.problems:
        first = printable(batch.problems[0])
        tell(f"left out {counted(len(batch.problems), 'unusable image')}; the first: {first}")
    samples = list(zip(batch.images, batch.labels, batch.boxes, strict=True))
    if around == "oracle" and any(bool(box.isnan().any()) for _, _, box in samples):
        raise UserError("the oracle needs to know where to look: boxes.csv lacks some of the validation images")
    scale_range = run.config.model.scale_range
    settings: dict[str, Any] = {
        "glimpse": glimpse,
        "points": points,
        "scale_range": scale_range,
        "loss": by_name(loss, run.config.training.auxiliary_weight),
        "seed": seed,
    }
    results = {}
    for kind in generators:
        generator = None if kind == "own" else SamplingConfig.kinds[kind]().build(run.model.generator.glimpse_size)
        policies = {
            "learned": None,
            "random": baseline_policy("random", scale_range, seed=seed),
            "oracle": [baseline_policy("oracle", scale_range, boxes=box[None]) for _, _, box in samples],
        }
        name = os.path.normpath(run.folder) + ("" if kind == "own" else f" ({kind})")
        pairs = [(image, int(label)) for image, label, _ in samples]
        try:
            results[name] = gradient_quality(run.model, pairs, policy=policies[around], generator=generator, **settings)
        except ValueError as error:
            raise SettingError(str(error)) from error
        tell(f"measured {name}: {counted(results[name].num_images, 'image')}")
    return results
