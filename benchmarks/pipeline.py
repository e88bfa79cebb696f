"""Does reading images keep up with training? JPEG files to squares, first glimpses and windows, in images per second.

    waiting = seconds spent in next(loader) / all seconds      cores needed = images/s wanted / images/s per core

Three decoders are timed in turn, in one process on one thread: Pillow as in ``data/images.py``; Pillow in draft mode,
which decodes at a half, quarter or eighth of the size if that is enough; torchvision's decoder. Then the loader is
timed with several numbers of workers, alone and during the training step of ResNet-18.

Photos come from --data, or are generated: noise of 500 x 375 pixels, JPEG quality 90, as large as ImageNet's (110 kB).

Command: ``python benchmarks/pipeline.py [--data FOLDER] [--smoke]``; writes ``benchmarks/results/speed-pipeline.json``
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision import io
from torchvision.transforms.v2 import functional

from glimpsenet.bench.subjects import open_subject
from glimpsenet.bench.timing import interleaved
from glimpsenet.bench.training import training_steps
from glimpsenet.data.config import AugmentationConfig, LightAugmentation
from glimpsenet.data.finding import find_images
from glimpsenet.data.folder import PhotoDataset
from glimpsenet.data.images import read_image
from glimpsenet.data.loading import create_loader
from glimpsenet.data.spread import spread_over_folders
from glimpsenet.data.streams import TrainingStream
from glimpsenet.devices import computes_in_bfloat16
from glimpsenet.files import write_json
from glimpsenet.models.sampling import MipmapGlimpses
from glimpsenet.provenance import provenance
from glimpsenet.tables import print_table

CPU = torch.device("cpu")
SEED = 0
SIZE, GLIMPSE, LOOKS = 224, 96, 4
AUGMENTATIONS = ("light", "imagenet")
ROUGHNESS = 0.9
"""Of drawn photos: how much weaker each octave is than the one before."""
RATES = (1_000, 5_000, 10_000)
"""Images a second that a GPU may ask for."""


def draw_photos(folder: Path, count: int) -> None:
    """Noise at every scale, the finer the weaker."""
    random = np.random.default_rng(SEED)
    for place in range(count):
        picture = np.full((375, 500, 3), 127.0)
        for octave in range(2, 9):
            size = (2**octave * 3 // 4, 2**octave, 3)
            coarse = Image.fromarray(random.integers(256, size=size, dtype=np.uint8))
            enlarged = np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC), float)
            picture += (enlarged - 127) * ROUGHNESS ** (octave - 1)
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{place:04d}.jpg", quality=90)


def read_draft(file: Path) -> Tensor:
    """Pillow, decoded no larger than needed."""
    with Image.open(file) as image:
        image.draft("RGB", (SIZE, SIZE))
        return functional.pil_to_tensor(ImageOps.exif_transpose(image).convert("RGB"))


def read_torchvision(file: Path) -> Tensor:
    """torchvision's own libjpeg, straight to a tensor."""
    image = io.decode_jpeg(io.read_file(str(file)), io.ImageReadMode.RGB, apply_exif_orientation=True)
    assert isinstance(image, Tensor)  # a list for a list of files
    return image


READERS: dict[str, Callable[[Path], Tensor]] = {
    "Pillow": read_image,
    "Pillow, draft": read_draft,
    "torchvision": read_torchvision,
}


def measure_decoding(files: list[Path], repetitions: int) -> list[dict[str, Any]]:
    """Images/s on one thread of each reader, up to each stage."""
    square = LightAugmentation().evaluation_transform(SIZE)
    generator = MipmapGlimpses(GLIMPSE)
    windows = torch.tensor([[1.0, 0.0, 0.0]] + [[0.3, 0.2 * step, -0.2] for step in range(1, LOOKS)])

    def look(image: Tensor) -> list[Tensor]:
        prepared = generator.prepare(image[None].float() / 255)
        return [generator(prepared, window[None]) for window in windows]

    stages: dict[str, Callable[[Tensor], Any]] = {
        "decoded": lambda image: image,
        f"square of {SIZE} px": square,
        **{f"{name} augmentation": AugmentationConfig.kinds[name]().training_transform(SIZE) for name in AUGMENTATIONS},
        f"square, {LOOKS} glimpses of {GLIMPSE} px": lambda image: look(square(image)),
    }

    def run(read: Callable[[Path], Tensor], finish: Callable[[Tensor], Any]) -> None:
        with torch.inference_mode():
            for file in files:
                finish(read(file))

    calls = {(r, s): lambda r=r, s=s: run(READERS[r], stages[s]) for r in READERS for s in stages}
    timings = interleaved(calls, CPU, repetitions)
    return [
        {"reader": reader, "stage": stage, "images_per_second": len(files) / timing.median, **timing.to_dict()}
        for (reader, stage), timing in timings.items()
    ]


def measure_loader(
    files: list[Path], workers: int, batches: int, batch: int, step: Callable[[], object]
) -> dict[str, Any]:
    """Images/s of the loader alone, and the share of waiting when every batch is followed by a training step."""
    dataset = PhotoDataset(files, [0] * len(files), LightAugmentation().training_transform(SIZE))

    def open_loader() -> Any:
        return iter(create_loader(dataset, TrainingStream(len(files), 0), batch, workers=workers))

    loader = open_loader()
    for _ in range(1 + 2 * workers):  # those that were read ahead
        next(loader)
    start = time.perf_counter()
    for _ in range(batches):
        next(loader)
    alone = time.perf_counter() - start
    loader = open_loader()
    next(loader)  # workers have started
    step()
    waiting, start = 0.0, time.perf_counter()
    for _ in range(batches):
        before = time.perf_counter()
        next(loader)
        waiting += time.perf_counter() - before
        step()
    whole = time.perf_counter() - start
    return {
        "workers": workers,
        "images_per_second": batches * batch / alone,
        "training_images_per_second": batches * batch / whole,
        "share_of_waiting": waiting / whole,
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of JPEG files")
    parser.add_argument("--files", type=int, default=200, help="how many of them")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--smoke", action="store_true", help="a minute instead of many, for no figures to keep")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/speed-pipeline.json"))
    chosen = parser.parse_args()
    if chosen.smoke:
        chosen.files, chosen.batches, chosen.batch_size, chosen.repetitions = 8, 1, 4, 1
    with tempfile.TemporaryDirectory() as folder:
        if chosen.data is None:
            draw_photos(Path(folder), chosen.files)
        files = [file for file in find_images(chosen.data or Path(folder)) if file.suffix.lower() in (".jpg", ".jpeg")]
        files = spread_over_folders(files, chosen.files, seed=0)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        decoding = measure_decoding(files, chosen.repetitions)
        torch.set_num_threads(threads)
        dtype = torch.bfloat16 if computes_in_bfloat16(CPU) else torch.float32
        steps = training_steps(open_subject("resnet18", CPU), ["fast"], dtype, chosen.batch_size)
        loading = [measure_loader(files, w, chosen.batches, chosen.batch_size, steps["fast"]) for w in chosen.workers]
        photos = {
            "files": len(files),
            "mean_kilobytes": sum(file.stat().st_size for file in files) / len(files) / 1e3,
            "mean_megapixels": sum(np.prod(Image.open(file).size) for file in files) / len(files) / 1e6,
            "drawn": chosen.data is None,
        }
    speeds = {
        f"{row['reader']}, {name}": row["images_per_second"]
        for row in decoding
        for name in AUGMENTATIONS
        if row["stage"] == f"{name} augmentation"
    }
    cores = [{"rate": rate, **{way: rate / speed for way, speed in speeds.items()}} for rate in RATES]
    print_table(
        f"images/s on one core, {photos['mean_megapixels']:.2f} megapixels, {photos['mean_kilobytes']:.0f} kB",
        ["reader", "to", "images/s"],
        [[row["reader"], row["stage"], f"{row['images_per_second']:.0f}"] for row in decoding],
    )
    print_table(
        f"loader (Pillow, light augmentation) beside a ResNet-18 training step of {chosen.batch_size}",
        ["workers", "images/s alone", "images/s in training", "waiting"],
        [
            [
                str(row["workers"]),
                f"{row['images_per_second']:.0f}",
                f"{row['training_images_per_second']:.1f}",
                f"{row['share_of_waiting']:.1%}",
            ]
            for row in loading
        ],
    )
    print_table(
        "cores that a GPU needs beside it",
        ["images/s", *speeds],
        [[str(row["rate"]), *(f"{row[way]:.0f}" for way in speeds)] for row in cores],
    )
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    values = {"photos": photos, "decoding": decoding, "loading": loading, "cores": cores}
    write_json(chosen.out, {**provenance(CPU, [SEED]), **values})
    print(f"wrote {chosen.out}")


if __name__ == "__main__":
    main()
