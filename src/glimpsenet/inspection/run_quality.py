"""Gradient quality of a run over a dataset's images; ``quality.py`` defines it."""

import os
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from glimpsenet.data.sample import Batch
from glimpsenet.data.spread import read_spread
from glimpsenet.errors import MissingError, SettingError, printable
from glimpsenet.inspection.config import QualitySettings
from glimpsenet.inspection.gradients import by_name
from glimpsenet.inspection.photo import validation_images
from glimpsenet.inspection.quality import GradientQuality, gradient_quality
from glimpsenet.models.config import SamplingConfig
from glimpsenet.policies.base import Policy
from glimpsenet.policies.baselines import baseline_policy
from glimpsenet.runs import Run
from glimpsenet.tables import counted


def run_quality(
    run: Run,
    settings: QualitySettings | None = None,
    *,
    data: Path | None = None,
    tell: Callable[[str], None] = print,
) -> dict[str, GradientQuality]:
    """Measure a run's gradient quality with each of several ways to sample windows.

    Args:
        run: from :func:`~glimpsenet.runs.run.load_run`.
        settings: how quality is measured.
        data: image folder with val/CLASS; the run's validation images if None.
        tell: called with lines on skipped images and on progress.

    Returns:
        Run folder -> quality; other samplings than the run's are appended in brackets.

    Raises:
        UserError: for unusable data or settings.
    """
    settings = settings or QualitySettings()
    batch = read_spread(validation_images(run, data), settings.images, settings.seed)
    if batch.problems:
        first = printable(batch.problems[0])
        tell(f"skipped {counted(len(batch.problems), 'unusable image')}; the first: {first}")
    samples: list[tuple[Tensor, int | None]] = [
        (image, int(label)) for image, label in zip(batch.images, batch.labels, strict=True)
    ]
    results = {}
    for kind in settings.generators:
        own = run.model.generator
        name = os.path.normpath(run.folder) + ("" if kind == "own" else f" ({kind})")
        try:
            results[name] = gradient_quality(
                run.model,
                samples,
                glimpse=settings.glimpse,
                points=settings.points,
                scale_range=run.config.model.scale_range,
                loss=by_name(settings.loss, run.config.training.auxiliary_weight),
                policy=_policies(run, settings, batch),
                generator=None if kind == "own" else SamplingConfig.kinds[kind]().build(own.glimpse_size),
                seed=settings.seed,
            )
        except ValueError as error:
            raise SettingError(str(error)) from error
        tell(f"measured {name}: {counted(results[name].num_images, 'image')}")
    return results


def _policies(run: Run, settings: QualitySettings, batch: Batch) -> Policy | list[Policy] | None:
    """The policy whose windows are measured around: the model's, random, or each image's box."""
    scale_range = run.config.model.scale_range
    if settings.policy == "learned":
        return None
    if settings.policy == "random":
        return baseline_policy("random", scale_range, seed=settings.seed)
    if bool(batch.boxes.isnan().any()):
        raise MissingError("the oracle needs boxes: boxes.csv has none for some of the validation images")
    return [baseline_policy("oracle", scale_range, boxes=box[None]) for box in batch.boxes]
