"""Run a model on one image file: the first step of the inspection tools."""

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from glimpsenet.data.images import read_image
from glimpsenet.data.loading import open_data
from glimpsenet.data.sample import GlimpseDataset
from glimpsenet.errors import SettingError, UserError, printable
from glimpsenet.inference.files import true_class
from glimpsenet.inspection import gradients
from glimpsenet.inspection.config import Look
from glimpsenet.inspection.injection import parse_windows
from glimpsenet.policies.baselines import FixedGlimpses
from glimpsenet.runs import Run


def read_photo(run: Run, image: Path) -> Tensor:
    """Read an image file as the run's model takes it: ``[channel, size, size]``, not normalised.

    Raises:
        UserError: for a folder, or a file that cannot be read.
    """
    if image.is_dir():
        raise UserError(f"{image} is a folder; name one image file")
    photos = run.config.photos
    transform = photos.augmentation.evaluation_transform(run.config.model.image_size)
    return transform(read_image(image, run.channels, photos.value_range))


def observe_photo(
    run: Run, image: Path, look: Look | None = None, *, tell: Callable[[str], None] = lambda text: None
) -> tuple[gradients.Scene, gradients.WindowLoss]:
    """Run a model on an image file.

    Args:
        run: from :func:`~glimpsenet.runs.run.load_run`.
        image: image file.
        look: which loss is differentiated, and which windows are injected.
        tell: called with a line that names the loss.

    Returns:
        The scene, and the loss to differentiate.

    Raises:
        UserError: for a file that cannot be read, an unknown class or an impossible window.
    """
    look = look or Look()
    picture = read_photo(run, image)
    if look.label is not None and look.label not in run.classes:
        raise SettingError(f"the run has no class '{look.label}'; it has {', '.join(run.classes[:12])}...")
    injected = parse_windows(look.set, run.model.num_glimpses, allow_outside=look.allow_outside)
    known = true_class(image, run.classes)
    name = look.label or known
    policy = FixedGlimpses(injected, otherwise=run.model.policy) if injected else None
    scene = gradients.observe(run.model, picture, None if name is None else run.classes.index(name), policy=policy)
    source = "" if look.label else " (the folder's)" if known else " (the predicted one; use the label to name another)"
    tell(printable(f"loss of class '{run.classes[scene.label]}'{source}"))
    return scene, gradients.by_name(look.loss, run.config.training.auxiliary_weight)


def validation_images(run: Run, data: Path | None = None) -> GlimpseDataset:
    """Open a run's validation images, or those of another folder."""
    config = run.config if data is None else run.config.with_data(data)
    return open_data(config, run.classes, run.channels).val
