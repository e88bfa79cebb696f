"""``glimpsenet data``: make data sets."""

from pathlib import Path
from typing import Annotated, Any

import tyro

from glimpsenet.cli.arguments import FLAT, Destination
from glimpsenet.cli.output import say
from glimpsenet.config import check_seed
from glimpsenet.data.config import DigitsConfig
from glimpsenet.kinds import at_least


def digits(
    destination: Destination,
    /,
    *,
    scenes: Annotated[DigitsConfig, FLAT] = DigitsConfig(train_scenes=1000, val_scenes=200, test_scenes=200),
    image_size: int = 80,
    seed: int = 0,
) -> None:
    """Write digit scenes as an image folder with boxes.csv: something to try image-folder and predict on.

    Args:
        scenes: what they are like.
        image_size: side of a scene in pixels.
        seed: of the training scenes.
    """
    from glimpsenet.data.digits import write_scenes

    check_seed(seed)
    count = write_scenes(destination, scenes, image_size, seed)
    say(f"wrote {count} scenes to {destination}")


def shards(
    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")],
    destination: Destination,
    /,
    *,
    samples: int = 2000,
    seed: int = 0,
) -> None:
    """Pack an image folder into WebDataset shards, which --data takes like a folder; boxes stay behind.

    Args:
        source: image folder with train/CLASS and val/CLASS.
        samples: images a shard.
        seed: of the order of training images, so that a shard holds all classes.
    """
    from glimpsenet.data.shards import write_shards

    check_seed(seed)
    at_least(1, samples=samples)
    count = write_shards(source, destination, samples, seed)
    say(f"wrote {count} images to {destination}")


def imagenet100(
    imagenet: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="IMAGENET")], destination: Destination, /
) -> None:
    """Make ImageNet100, the report's data, from a copy of ImageNet-1k: links to its first 100 classes.

    Args:
        imagenet: folder with train/ and val/ of 1,000 class folders each.
        destination: where to make it; safe to run twice.
    """
    from glimpsenet.data.imagenet import build_imagenet100

    say_links(destination, build_imagenet100(imagenet, destination))


def imagenet_c(
    imagenet_c: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="IMAGENET-C")], destination: Destination, /
) -> None:
    """The same classes of ImageNet-C: links to 15 corruptions at five severities.

    Args:
        imagenet_c: folder with CORRUPTION/SEVERITY/CLASS, or those in groups (blur, noise, ...).
        destination: where to make it; safe to run twice.
    """
    from glimpsenet.data.imagenet import build_imagenet100_c

    say_links(destination, build_imagenet100_c(imagenet_c, destination))


def say_links(destination: Path, links: Any) -> None:
    """How many links there are now."""
    say(f"{destination}: {links.made} class folders linked, {links.kept} were there")


DATA = {"digits": digits, "shards": shards, "imagenet100": imagenet100, "imagenet-c": imagenet_c}
