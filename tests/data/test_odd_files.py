"""300 odd files: each is an image or one clear error, in little memory and time, without a crash or a word from C.

They are read in a process of their own, whose address space and processor time are limited.
"""

import io
import json
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from glimpsenet.data.images import EXTENSIONS

WIDTH, HEIGHT = 61, 47  # bytes that stand for nothing else in a header, mostly
TRUNCATED, FLIPPED, RENAMED, RESIZED, BOMBS = 100, 130, 30, 34, 6
MEMORY, SECONDS = 1_000_000_000, 4
"""How much reading may add to the memory of the process, and the processor time that a file may take."""

READ_ALL = """
import json, resource, sys, time, warnings
from pathlib import Path
from glimpsenet.data.images import read_image
from glimpsenet.errors import UnreadableImageError

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

space, (memory, seconds) = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize(), sys.argv[2:]
resource.setrlimit(resource.RLIMIT_AS, (space + int(memory), space + int(memory)))
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
warnings.simplefilter("ignore")  # one for each file that libtiff complains of
before = peak()
for file in sorted(Path(sys.argv[1]).iterdir()):
    start = time.process_time()
    try:
        image = read_image(file)
        result = {"shape": list(image.shape), "dtype": str(image.dtype)}
    except UnreadableImageError as error:
        result = {"error": str(error)}
    seconds = time.process_time() - start
    print(json.dumps({"file": str(file), "seconds": seconds, **result}))
print(json.dumps({"peak": peak() - before}))
"""


def whole_images() -> dict[str, bytes]:
    """Suffix -> an image, in many formats and in modes that take ways of their own through the decoders."""
    rng = np.random.default_rng(0)
    smooth = np.linspace(0, 255, WIDTH)[None, :, None] * np.linspace(0.2, 1, HEIGHT)[:, None, None]
    noise = rng.integers(-30, 30, size=(HEIGHT, WIDTH, 3))
    colour = Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8))
    grey = np.asarray(colour.convert("L"))
    real = Image.fromarray(grey.astype(np.float32) / 255)
    wide = Image.fromarray(grey.astype(np.uint16) * 257)
    swapped = Image.fromarray(grey.astype(">u2") * 257)
    lab = ImageCms.profileToProfile(
        colour, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    turned = Image.Exif()
    turned[0x0112] = 6
    kinds = {
        "turned.jpg": (colour, {"format": "JPEG", "exif": turned}),
        "progressive.jpg": (colour, {"format": "JPEG", "progressive": True}),
        "profile.jpg": (colour, {"format": "JPEG", "icc_profile": profile}),
        "ink.jpg": (colour.convert("CMYK"), {"format": "JPEG"}),
        "mpo": (colour, {"save_all": True, "append_images": [colour]}),
        "png": (colour, {}),
        "palette.png": (colour.convert("P"), {"format": "PNG", "transparency": 3}),
        "wide.png": (wide, {"format": "PNG"}),
        "gif": (colour.convert("P"), {"save_all": True, "append_images": [colour.rotate(90).convert("P")]}),
        "webp": (colour, {}),
        "lossless.webp": (colour, {"format": "WEBP", "lossless": True}),
        "bmp": (colour, {}),
        "ppm": (colour, {}),
        "tif": (colour, {"format": "TIFF"}),
        "lzw.tif": (colour, {"format": "TIFF", "compression": "tiff_lzw"}),
        "zip.tif": (colour, {"format": "TIFF", "compression": "tiff_adobe_deflate"}),
        "jpeg.tif": (colour, {"format": "TIFF", "compression": "jpeg"}),
        "fax.tif": (colour.convert("1"), {"format": "TIFF", "compression": "group4"}),
        "real.tif": (real, {"format": "TIFF"}),
        "swapped.tif": (swapped, {"format": "TIFF"}),
        "lab.tif": (lab, {"format": "TIFF"}),
        "jp2": (colour, {"format": "JPEG2000"}),
        "avif": (colour, {}),
    }
    written = {}
    for suffix, (image, options) in kinds.items():
        file = io.BytesIO()
        image.save(file, **{"format": suffix.upper(), **options})
        written[suffix] = file.getvalue()
    return written


def flip(content: bytes, rng: random.Random) -> bytes:
    """With up to eight bits inverted, half of the time all of them in the header."""
    spoilt, end = bytearray(content), rng.choice([len(content), min(len(content), 150)])
    for _ in range(rng.randint(1, 8)):
        spoilt[rng.randrange(end)] ^= 1 << rng.randrange(8)
    return bytes(spoilt)


def resize(content: bytes, rng: random.Random) -> bytes:
    """With width, height or both changed in its header, to anything up to what their bytes can hold."""
    spoilt, changed = content, rng.choice([(WIDTH,), (HEIGHT,), (WIDTH, HEIGHT)])
    for side in changed:
        for form in (">I", "<I", ">H", "<H"):
            bits = 8 * struct.calcsize(form)
            other = struct.pack(form, rng.choice([0, 2 ** (bits - 1) - 1, 2**bits - 1, 8 * side, 3000, 60_000]))
            if struct.pack(form, side) in spoilt[:400]:
                spoilt = spoilt.replace(struct.pack(form, side), other, 2)
                break
    if content.startswith(b"\x89PNG"):  # or its checksum gives it away
        spoilt = spoilt[:29] + struct.pack(">I", zlib.crc32(spoilt[12:29])) + spoilt[33:]
    return spoilt


def bombs(whole: dict[str, bytes]) -> dict[str, bytes]:
    """Small files that unpack to very much, or take very long."""
    many, side = Image.new("L", (9500, 9500)), Image.new("L", (3000, 3000), 128)
    made: dict[str, bytes] = {}
    for form in ("PNG", "GIF", "TIFF", "JPEG"):
        file = io.BytesIO()
        many.save(file, form, **({"compression": "tiff_adobe_deflate"} if form == "TIFF" else {}))
        made[f"pixels.{form.lower()}"] = file.getvalue()
    comment = b"comment\0\0" + zlib.compress(b"a" * 20_000_000, 1)
    chunk = struct.pack(">I", len(comment)) + b"zTXt" + comment + struct.pack(">I", zlib.crc32(b"zTXt" + comment))
    made["text.png"] = whole["png"][:33] + chunk + whole["png"][33:]
    file = io.BytesIO()
    side.save(file, "JPEG", progressive=True)
    scan = file.getvalue()[file.getvalue().rindex(b"\xff\xda") : -2]
    header = scan[: 2 + int.from_bytes(scan[2:4])]
    made["scans.jpg"] = file.getvalue()[:-2] + 20_000 * (header + b"\0") + b"\xff\xd9"
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """All of them; a name says what was done."""
    folder, rng, whole = tmp_path_factory.mktemp("odd"), random.Random(0), whole_images()
    names = list(whole)
    files = {f"whole.{suffix.split('.')[-1]}.{suffix}": content for suffix, content in whole.items()}
    for place in range(TRUNCATED):
        suffix = names[place % len(names)]
        files[f"truncated-{place}.{suffix}"] = whole[suffix][: rng.randrange(len(whole[suffix]))]
    for place in range(FLIPPED):
        suffix = names[place % len(names)]
        files[f"flipped-{place}.{suffix}"] = flip(whole[suffix], rng)
    for place in range(RENAMED):
        content, suffix = names[place % len(names)], names[(place * 7 + 3) % len(names)]
        kind = content.split(".")[-1]  # that of the content stands first, that of the name last
        files[f"renamed-{place}.{kind}.{suffix}"] = whole[content]
    for place in range(RESIZED):
        suffix = names[place % len(names)]
        files[f"resized-{place}.{suffix}"] = resize(whole[suffix], rng)
    made = bombs(whole)
    assert len(made) == BOMBS
    files |= {f"bomb-{suffix}": content for suffix, content in made.items()}
    assert len(files) == len(whole) + 300
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of memory are Linux's")
def test_every_odd_file_is_an_image_or_one_clear_error(folder):
    command = [sys.executable, "-c", READ_ALL, str(folder), str(MEMORY), str(SECONDS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")  # no crash, no limit, and nothing said by decoders in C
    *rows, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["file"] for row in rows] == [str(file) for file in sorted(folder.iterdir())]
    assert last["peak"] < MEMORY
    problems: dict[str, str] = {}
    for row in rows:
        file = Path(row["file"])
        assert row["seconds"] < SECONDS, file.name
        if "error" in row:
            problems[file.name] = row["error"]
            assert row["error"].startswith(f"cannot read image {file}: "), file.name
            assert row["error"].isprintable(), file.name
            assert "MemoryError" not in row["error"], file.name
        else:
            assert row["dtype"] == "torch.uint8", file.name
            assert row["shape"][0] == 3, file.name
    read = {Path(row["file"]).name for row in rows} - set(problems)
    intact = {name for name in problems if name.startswith(("whole", "renamed"))}
    assert not {name for name in intact if f".{name.split('.')[1]}" in EXTENSIONS}  # whatever they are called
    assert not any(name.startswith("bomb") for name in read)
    for kind, least in {"truncated": TRUNCATED // 2, "flipped": 20, "resized": 10}.items():
        assert sum(name.startswith(kind) for name in problems) >= least  # mutations that change nothing test nothing
    assert sum(name.startswith("flipped") for name in read) >= 20  # nor do those that no decoder looks into
