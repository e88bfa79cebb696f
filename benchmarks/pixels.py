"""Do we read the same pixels as another library? Every file mode, by ``data/images.py`` and by libvips.

    difference = |ours - libvips|, in 8-bit steps, over all pixels and channels of a synthetic photo

libvips reads through ``pyvips`` and implements our table with its own code: ``flatten`` puts images on white,
``icc_transform`` applies profiles, ``colourspace`` converts, and ``linear`` and ``cast`` scale wide grey. If the two
differ by design, the row states the reason and a matching tolerance. TIFF files come from libvips, so that neither
reads only files it wrote.

The script also times what capturing libtiff's messages costs per image (``data/noise.py``).

Command: ``python benchmarks/pixels.py``; writes ``benchmarks/results/pixels.json``, and exits with 1 if a row is out of
tolerance.
"""

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image, ImageCms, features

from glimpsenet.data.images import read_image
from glimpsenet.data.noise import listening
from glimpsenet.data.pixels import ValueRange
from glimpsenet.files import write_json
from glimpsenet.provenance import provenance
from glimpsenet.tables import print_table

try:
    import pyvips  # pyright: ignore[reportMissingImports]
except (ImportError, OSError):
    sys.exit("this needs libvips: pip install pyvips pyvips-binary")

SIDE, SEED = 128, 0
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Row:
    """A mode of files, and how far the two readers may be apart."""

    name: str
    suffix: str
    write: Callable[[Path], None]
    reference: Callable[[Any], Any]
    """What ``load`` gives -> RGB, 8 bits."""
    mean: float
    most: float
    why: str
    value_range: ValueRange | None = None
    load: Callable[[Path], Any] = lambda file: pyvips.Image.new_from_file(str(file))


def draw() -> np.ndarray:
    """A photo of smooth colours, edges and noise, 0..1."""
    random = np.random.default_rng(SEED)
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    smooth = np.stack([x, y, (np.sin(9 * x) * np.cos(7 * y) + 1) / 2], -1)
    edges = ((x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.1)[..., None] * np.array([0.3, -0.2, 0.1])
    return (0.8 * smooth + 0.1 + edges + random.normal(0, 0.03, smooth.shape)).clip(0, 1)


def vips_of(values: np.ndarray, meaning: str) -> Any:
    """An array as libvips has it."""
    return pyvips.Image.new_from_array(np.ascontiguousarray(values)).copy(interpretation=meaning)


def as_srgb(image: Any) -> Any:
    """By libvips' own conversion."""
    return image.colourspace("srgb")


def on_white(image: Any) -> Any:
    """Alpha laid on white."""
    return as_srgb(image).flatten(background=[255, 255, 255])


def by_profile(image: Any) -> Any:
    """Through the profile in the file, as photographs are (perceptual)."""
    return image.icc_transform("srgb", embedded=True, intent="perceptual")


def load_lab(file: Path) -> Any:
    """Its numbers by Pillow, since libvips refuses Pillow's LAB files ("bad labq format")."""
    with Image.open(file) as image:
        values = np.asarray(image)
    lightness, colours = values[..., :1] / 2.55, values[..., 1:].astype(np.int8)
    return vips_of(np.concatenate([lightness, colours], -1).astype(np.float32), "lab")


def by_export(image: Any) -> Any:
    """LAB as colour profiles define it, with white of D50; ``colourspace`` would take it for D65."""
    return image.icc_export(output_profile="srgb", depth=8)


def scaled(black: float, white: float) -> Callable[[Any], Any]:
    """Wide grey between black and white, in three channels."""

    def convert(image: Any) -> Any:
        share = (image.cast("double") - black) / (white - black)
        grey = (share * 255).rint().cast("uchar").copy(interpretation="b-w")
        return grey.colourspace("srgb")

    return convert


def by_subtraction(image: Any) -> Any:
    """Inks without a profile, each taking its colour out of white."""
    inks = image.cast("double")
    colours = [255 - (inks[band] + inks[3]) for band in range(3)]
    return colours[0].bandjoin(colours[1:]).cast("uchar").copy(interpretation="srgb")


def list_rows() -> list[Row]:
    """Every mode of the table in docs/own-images.md."""
    colour, eight = draw(), (draw() * 255).round().astype(np.uint8)
    grey = colour.mean(-1)
    wide, inks = (grey * 65535).round().astype(np.uint16), Image.fromarray(eight).convert("CMYK")
    alpha = np.concatenate([eight, (grey * 255).round().astype(np.uint8)[..., None]], -1)
    swapped = Image.fromarray(wide.astype(">u2"))
    srgb = ImageCms.createProfile("sRGB")
    lab = ImageCms.profileToProfile(Image.fromarray(eight), srgb, ImageCms.createProfile("LAB"), outputMode="LAB")
    assert lab is not None  # as it is only where an image is changed in place

    def pillow(image: Image.Image, **options: Any) -> Callable[[Path], None]:
        return lambda file: image.save(file, **options)

    def vips(values: np.ndarray, meaning: str, **options: Any) -> Callable[[Path], None]:
        return lambda file: vips_of(values, meaning).write_to_file(str(file), **options)

    def with_profile(file: Path) -> None:
        """Inks of libvips' own profile."""
        vips_of(eight, "srgb").icc_export(output_profile="cmyk", depth=8).write_to_file(str(file))

    palette = Image.fromarray(eight).quantize(64)
    exact, full, measured = "the same values", scaled(0, 65535), (0.1, 0.7)
    integers, real = (grey * 40000 - 10000).round().astype(np.int32), grey.astype(np.float32)
    return [
        Row("1 bit", "png", pillow(Image.fromarray(grey > 0.5)), as_srgb, 0, 0, exact),
        Row("8-bit grey", "tif", vips(eight[..., :1], "b-w"), as_srgb, 0, 0, exact),
        Row("colour", "tif", vips(eight, "srgb"), as_srgb, 0, 0, exact),
        Row("colour with alpha", "png", vips(alpha, "srgb"), on_white, 0.5, 1, "rounding"),
        Row("palette", "png", pillow(palette), as_srgb, 0, 0, exact),
        Row("palette, one transparent", "png", pillow(palette, transparency=5), on_white, 0, 0, exact),
        Row("colour of 16 bits", "png", vips((colour * 65535).astype(np.uint16), "rgb16"), as_srgb, 0, 0, exact),
        Row("inks", "tif", pillow(inks), by_subtraction, 0, 0, "the same formula"),
        Row("inks with profile", "tif", with_profile, by_profile, 0.1, 2, "rounding"),
        Row("LAB", "tif", pillow(lab), by_export, 0.1, 2, "rounding", load=load_lab),
        Row("16 bits, PNG", "png", vips(wide, "grey16"), full, 0, 0, exact),
        Row("16 bits, TIFF", "tif", vips(wide, "grey16"), full, 0, 0, exact),
        Row("16 bits, TIFF, big-endian", "tif", pillow(swapped), full, 0, 0, exact),
        Row("16 bits, 1000 to 30000", "tif", vips(wide, "grey16"), scaled(1e3, 3e4), 0, 0, exact, (1e3, 3e4)),
        Row("32 bits, -1e4 to 3e4", "tif", vips(integers, "b-w"), scaled(-1e4, 3e4), 0, 0, exact, (-1e4, 3e4)),
        Row("float", "tif", vips(real, "b-w"), scaled(0, 1), 0, 0, exact),
        Row("float, 0.1 to 0.7", "tif", vips(real, "b-w"), scaled(*measured), 0, 0, exact, measured),
    ]


def compare(row: Row, folder: Path) -> dict[str, Any]:
    """Both readers on one file."""
    file = folder / f"{row.name}.{row.suffix}"  # libvips remembers files by name
    row.write(file)
    with Image.open(file) as opened:
        mode = opened.mode
    ours = read_image(file, value_range=row.value_range).permute(1, 2, 0).numpy().astype(int)
    theirs = row.reference(row.load(file)).numpy()
    difference = np.abs(ours - theirs)
    return {
        "files": row.name,
        "mode": mode,
        "mean": round(float(difference.mean()), 3),
        "most": int(difference.max()),
        "tolerance": {"mean": row.mean, "most": row.most, "why": row.why},
        "within": bool(difference.mean() <= row.mean and difference.max() <= row.most),
    }


def time_listening(repetitions: int) -> dict[str, float]:
    """Microseconds of the processor that listening adds to an image, and that decoding a small TIFF file takes."""
    file = io.BytesIO()
    Image.fromarray((draw() * 255).astype(np.uint8)).save(file, "TIFF", compression="tiff_lzw")
    count = 1000

    def decode() -> None:
        for _ in range(20):
            with Image.open(io.BytesIO(file.getvalue())) as image:
                image.load()

    def listen() -> None:
        for _ in range(count):
            with listening("image"):
                pass

    def least(call: Callable[[], None]) -> float:
        """Processor time of the fastest of all repetitions: what else the machine does adds to the others."""
        taken = []
        for _ in range(repetitions):
            start = time.thread_time()
            call()
            taken.append(time.thread_time() - start)
        return min(taken)

    return {
        "listening_us": round(least(listen) / count * 1e6, 2),
        f"decoding_{SIDE}_px_us": round(least(decode) / 20 * 1e6, 1),
    }


def main() -> None:
    """Compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/pixels.json"))
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [compare(row, Path(folder)) for row in list_rows()]
    noise = time_listening(chosen.repetitions)
    print_table(
        "difference from libvips, in 8-bit steps",
        ["files", "mode", "mean", "most", "tolerated"],
        [
            [row["files"], row["mode"], f"{row['mean']:.3f}", str(row["most"]), f"{row['tolerance']['most']:g}"]
            for row in rows
        ],
    )
    print(f"listening to libtiff: {noise}")
    versions = {
        "pillow": PIL.__version__,
        "libtiff": features.version("libtiff"),
        "littlecms": features.version("littlecms2"),
        "pyvips": pyvips.__version__,
        "libvips": ".".join(str(pyvips.version(part)) for part in range(3)),
    }
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(chosen.out, {**provenance(CPU, [SEED]), "versions": versions, "rows": rows, "noise": noise})
    print(f"wrote {chosen.out}")
    if bad := [row["files"] for row in rows if not row["within"]]:
        sys.exit(f"out of tolerance: {', '.join(bad)}")


if __name__ == "__main__":
    main()
