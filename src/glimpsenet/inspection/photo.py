"""A run's look at one image file: what the tools of inspection begin with."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from glimpsenet.data.images import read_image
from glimpsenet.data.loading import open_data
from glimpsenet.data.sample import GlimpseDataset
from glimpsenet.errors import SettingError, UserError
from glimpsenet.inference.files import true_class
from glimpsenet.inspection import gradients
from glimpsenet.inspection.injection import parse_windows
from glimpsenet.policies.baselines import FixedGlimpses
from glimpsenet.runs import Run


def read_photo(run: Run, image: Path) -> Tensor:
    """An image file as the run's model takes it: ``[channel, size, size]``, not normalised.

    Raises:
        UserError: for a folder, or a file that cannot be read.
    """
    if image.is_dir():
        raise UserError(f"{image} is a folder; name one image file")
    photos = run.config.photos
    transform = photos.augmentation.evaluation_transform(run.config.model.image_size)
    return transform(read_image(image, run.channels, photos.value_range))


def observe_photo(
    run: Run, image: Path, label: str | None = None, windows: Sequence[str] = (), *, allow_outside: bool = False
) -> gradients.Scene:
    """Let a run look at an image file.

    Args:
        run: from :func:`~glimpsenet.runs.run.load_run`.
        image: the file.
        label: the true class, by name; that of its folder or else the predicted one if None.
        windows: to inject, as ``GLIMPSE=s,tx,ty``; later glimpses react.
        allow_outside: accept windows that leave the image.

    Raises:
        UserError: for a file that cannot be read, an unknown class or an impossible window.
    """
    picture = read_photo(run, image)
    if label is not None and label not in run.classes:
        raise SettingError(f"the run has no class '{label}'; it has {', '.join(run.classes[:12])}...")
    injected = parse_windows(windows, run.model.num_glimpses, allow_outside=allow_outside)
    name = label or true_class(image, run.classes)
    policy = FixedGlimpses(injected, otherwise=run.model.policy) if injected else None
    return gradients.observe(run.model, picture, None if name is None else run.classes.index(name), policy=policy)


def validation_images(run: Run, data: Path | None = None) -> GlimpseDataset:
    """A run's validation images, or those of another folder."""
    config = run.config if data is None else run.config.with_data(data)
    return open_data(config, run.classes, run.channels).val
