"""The table of pixels in docs/own-images.md, row by row; and ``value_range`` wherever images are read."""

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from glimpsenet.cli import main
from glimpsenet.config import Config, from_dict, to_dict
from glimpsenet.data.config import FolderConfig, NoAugmentation
from glimpsenet.data.folder import open_folder
from glimpsenet.data.images import decode_image, read_image
from glimpsenet.data.shards import open_shards, write_shards
from glimpsenet.demo.pictures import from_url, make_square, thumbnail
from glimpsenet.errors import SettingError, UnreadableImageError
from glimpsenet.inference import Prediction, predict
from glimpsenet.inspection.photo import read_photo
from glimpsenet.models.build import build_model
from glimpsenet.models.config import ModelConfig
from glimpsenet.runs import Description, load_run, save_weights, write_description

# ---- files that Pillow reads but does not write --------------------------------------------------------------------


def tiff(
    pixels: bytes, width: int, bits: list[int], *, order: str = "<", kind: int = 1, meaning: int = 1, **tags: int
) -> bytes:
    """An uncompressed TIFF file of one row; ``kind`` 1 unsigned, 2 signed, 3 float; ``meaning`` 0 white is zero."""
    entries = {256: [width], 257: [1], 258: bits, 259: [1], 262: [meaning], 273: [8], 274: [tags.get("turned", 1)]}
    entries |= {277: [len(bits)], 278: [1], 279: [len(pixels)]}
    entries |= {338: [tags["alpha"]]} if "alpha" in tags else {}
    entries |= {339: [kind] * len(bits)}
    lists = b"".join(struct.pack(f"{order}{len(v)}H", *v) for v in entries.values() if len(v) > 2)
    directory, place = struct.pack(f"{order}H", len(entries)), 8 + len(pixels)
    for tag, values in entries.items():
        directory += struct.pack(f"{order}HHI", tag, 3, len(values))
        if len(values) > 2:
            directory += struct.pack(f"{order}I", place)
            place += 2 * len(values)
        else:
            directory += struct.pack(f"{order}{len(values)}H", *values).ljust(4, b"\0")
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8 + len(pixels) + len(lists))
    return head + pixels + lists + directory + bytes(4)


def grey(values: list[float], dtype: str, **options: int) -> bytes:
    """A TIFF file of one row of numbers, in the byte order of ``dtype``."""
    kind = {"u": 1, "i": 2, "f": 3}[dtype[1]]
    size = int(dtype[2:])
    return tiff(np.array(values, dtype).tobytes(), len(values), [8 * size], order=dtype[0], kind=kind, **options)


def png(values: list[list[int]], colour: int) -> bytes:
    """A PNG file of one row and 16 bits a channel."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", len(values), 1, 16, colour, 0, 0, 0)
    row = b"\0" + np.array(values, ">u2").tobytes()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def row(mode: str, values: list) -> Image.Image:
    image = Image.new(mode, (len(values), 1))
    image.putdata(values)
    return image


def palette(values: list[int], **options: object) -> bytes:
    image = row("P", values)
    image.putpalette([10, 20, 30, 200, 0, 0, 0, 0, 250])
    return saved(image, "PNG", **options)


def ink_profile(colours: dict[int, tuple[float, float, float]]) -> bytes:
    """An ICC profile of four inks: CIELAB of the 16 mixtures of full inks (bits CMYK), mid-grey if not given."""
    table = bytearray()
    for mixture in range(16):
        lightness, a, b = colours.get(mixture, (50, 0, 0))
        table += bytes([round(lightness * 2.55), a + 128, b + 128])
    identity = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    straight = bytes(range(256))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + straight * 4 + bytes(table) + straight * 3
    white = b"XYZ " + bytes(4) + struct.pack(">3i", *(round(v * 65536) for v in (0.9642, 1.0, 0.8249)))
    name = b"desc" + bytes(4) + struct.pack(">I", 5) + b"inks\0" + bytes(78)
    right = b"text" + bytes(4) + b"free\0"
    contents = {b"desc": name, b"cprt": right, b"wtpt": white, b"A2B0": lut}
    body, places = b"", []
    start = 128 + 4 + 12 * len(contents)
    for tag, content in contents.items():
        places.append(tag + struct.pack(">II", start + len(body), len(content)))
        body += content + bytes(-len(content) % 4)
    header = struct.pack(">I4sI4s4s4s", start + len(body), b"", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp"
    header = header.ljust(68, b"\0") + struct.pack(">3i", *(round(v * 65536) for v in (0.9642, 1.0, 0.8249)))
    return header.ljust(128, b"\0") + struct.pack(">I", len(contents)) + b"".join(places) + body


def srgb(lightness: float, a: float, b: float) -> list[float]:
    """CIELAB (D50) as 8-bit sRGB, by the formula."""
    y = (lightness + 16) / 116
    ratios = np.array([y + a / 500, y, y - b / 200])
    ratios = np.where(ratios > 6 / 29, ratios**3, (ratios - 4 / 29) * 3 * (6 / 29) ** 2)
    to_linear = [[3.1338561, -1.6168667, -0.4906146], [-0.9787684, 1.9161415, 0.033454]]
    to_linear.append([0.0719453, -0.2289914, 1.4052427])
    linear = np.array(to_linear) @ (ratios * [0.9642, 1.0, 0.8249])
    return (255 * np.where(linear > 0.0031308, 1.055 * linear.clip(0) ** (1 / 2.4) - 0.055, 12.92 * linear)).tolist()


CYAN, RED = (60, -25, -30), (50, 50, 30)
PROFILE = ink_profile({0b0000: (100, 0, 0), 0b1000: CYAN, 0b0110: RED, 0b0001: (0, 0, 0), 0b1111: (0, 0, 0)})
INKS = row("CMYK", [(0, 0, 0, 0), (255, 0, 0, 0), (0, 255, 255, 0), (0, 0, 0, 255)])
WHITE, BLACK = [255] * 3, [0] * 3
GREYS = [0, 257, 32768, 65535]
"""Of 16 bits; as 8 bits 0, 1, 128 (127.5) and 255."""


def greys(*values: int) -> list[list[int]]:
    return [[value] * 3 for value in values]


WIDE = struct.pack(">3H", 0x12FF, 0, 0xFFFF)
TRANSPARENT = saved(Image.fromarray(np.array([GREYS], np.uint16)), "PNG", transparency=257)
LAB = tiff(bytes([255, 0, 0, 0, 0, 0, 153, 256 - 25, 256 - 30]), 3, [8] * 3, meaning=8)
ROWS = {
    "1 bit": (saved(row("1", [0, 1]), "PNG"), greys(0, 255), 0),
    "1 bit, white is zero": (tiff(b"\x40", 2, [1], meaning=0), greys(255, 0), 0),
    "8-bit grey": (grey([0, 100, 255], "<u1"), greys(0, 100, 255), 0),
    "8-bit grey, signed": (grey([-128, 0, 127], "<i1"), greys(0, 128, 255), 0),
    "grey with alpha": (saved(row("LA", [(100, 255), (100, 0)]), "PNG"), greys(100, 255), 0),
    "grey times its alpha": (tiff(bytes([100, 255, 0, 0]), 2, [8, 8], alpha=1), greys(100, 255), 0),
    "palette": (palette([0, 1, 2]), [[10, 20, 30], [200, 0, 0], [0, 0, 250]], 0),
    "palette, one transparent": (palette([0, 1, 2], transparency=1), [[10, 20, 30], WHITE, [0, 0, 250]], 0),
    "palette, alpha each": (palette([0, 1], transparency=b"\xff\x00\xff"), [[10, 20, 30], WHITE], 0),
    "colour": (saved(row("RGB", [(1, 2, 3)]), "PNG"), [[1, 2, 3]], 0),
    "colour with alpha": (saved(row("RGBA", [(1, 2, 3, 255), (1, 2, 3, 0)]), "PNG"), [[1, 2, 3], WHITE], 0),
    "colour of 16 bits, PNG": (png([[0x12FF, 0x3400, 0xFFFF]], 2), [[0x12, 0x34, 0xFF]], 0),
    "colour of 16 bits, TIFF": (tiff(WIDE, 1, [16] * 3, order=">", meaning=2), [[0x12, 0, 0xFF]], 0),
    "inks": (saved(INKS, "TIFF"), [WHITE, [0, 255, 255], [255, 0, 0], BLACK], 0),
    "inks with profile": (saved(INKS, "TIFF", icc_profile=PROFILE), [WHITE, srgb(*CYAN), srgb(*RED), BLACK], 4),
    "LAB": (LAB, [WHITE, BLACK, srgb(*CYAN)], 1),
    "16 bits, PNG": (png([[value] for value in GREYS], 0), greys(0, 1, 128, 255), 0),
    "16 bits, one transparent": (TRANSPARENT, greys(0, 255, 128, 255), 0),
    "16 bits, TIFF, little-endian": (grey(GREYS, "<u2"), greys(0, 1, 128, 255), 0),
    "16 bits, TIFF, big-endian": (grey(GREYS, ">u2"), greys(0, 1, 128, 255), 0),
    "16 bits, white is zero": (grey(GREYS, "<u2", meaning=0), greys(255, 254, 127, 0), 0.5),
    "16 bits, signed": (grey([-32768, 0, 32767], ">i2"), greys(0, 128, 255), 0),
    "16 bits, PGM": (b"P5 4 1 65535\n" + np.array(GREYS, ">u2").tobytes(), greys(0, 1, 128, 255), 0),
    "12 bits, TIFF": (tiff(b"\x00\x08\x00", 2, [12]), greys(0, 128), 0),
    "float": (grey([0, 0.25, 1], "<f4"), greys(0, 64, 255), 0),
    "float, white is zero": (grey([0, 0.25, 1], ">f4", meaning=0), greys(255, 191, 0), 0),
}


@pytest.mark.parametrize(("content", "expected", "tolerance"), ROWS.values(), ids=ROWS)
def test_each_row_of_the_table(content, expected, tolerance):
    image = decode_image(content)
    assert image.dtype == torch.uint8
    np.testing.assert_allclose(image[:, 0].T, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("content", "value_range", "expected"),
    [
        (grey([0, 100, 2100, 4095], "<u2"), (100, 4100), [0, 0, 128, 255]),
        (grey([0, 100, 2100, 4095], ">u2"), (100, 4100), [0, 0, 128, 255]),
        (grey([0, 100, 200], "<u2", meaning=0), (0, 200), [0, 128, 255]),  # what is black was said
        (grey([2**31, 2**32 - 1, 0], "<u4"), (2**31, 2**32 - 1), [0, 255, 0]),
        (grey([-5, 0, 5], ">i4"), (-5, 5), [0, 128, 255]),
        (grey([273, 310, 281], "<f4"), (273, 289), [0, 255, 128]),
        (grey([-1, 0.5, 2], "<f4"), (0, 1), [0, 128, 255]),
    ],
)
def test_the_values_given_become_black_and_white(content, value_range, expected):
    np.testing.assert_allclose(decode_image(content, 1, value_range).flatten(), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("content", "value_range", "message"),
    [
        (grey([-0.5, 0.5, 812], "<f4"), None, r"its values, -0\.5 to 812, are not in 0\.\.1; value_range says"),
        (grey([3, 5000], "<u4"), None, "its values, 3 to 5000, are 32-bit integers.*value_range says"),
        (grey([-3, 5000], "<i4"), None, "its values, -3 to 5000, are 32-bit integers.*value_range says"),
        (saved(row("L", [1]), "PNG"), (0, 4095), r"value_range \(0, 4095\) is for grey of 16.*read as L, at most 8"),
        (png([[1, 2, 3]], 2), (0, 4095), r"value_range \(0, 4095\) is for grey of 16.*read as RGB, at most 8 bits"),
        (saved(INKS, "TIFF", icc_profile=b"no profile"), None, "its inks' colour profile cannot be used"),
    ],
)
def test_what_has_no_black_and_white_is_refused(content, value_range, message):
    with pytest.raises(UnreadableImageError, match=rf"^cannot read a\.tif: {message}"):
        decode_image(content, 3, value_range, name="a.tif")


def test_wide_pixels_are_turned_upright_too():
    upright = decode_image(grey([0, 65535], ">u2", turned=6), channels=1)
    assert upright.tolist() == [[[0], [255]]]


# ---- the setting ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("span", [(1, 1), (2, 1), (0, np.inf), (np.nan, 1)])
def test_black_is_below_white(span):
    with pytest.raises(SettingError, match="value_range must be two finite numbers, black below white, got"):
        FolderConfig(value_range=span)


def test_the_setting_is_kept_in_runs_and_is_absent_from_older_ones():
    config = Config(data=FolderConfig(value_range=(0, 4095)))
    values = json.loads(json.dumps(to_dict(config)))
    assert from_dict(values) == config
    assert values["data"].pop("value_range") == [0, 4095]
    assert from_dict(values).data.value_range is None


def test_the_help_names_the_unit(capsys):
    with pytest.raises(SystemExit):
        main(["train", "image-folder", "--help"])
    told = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "in the files' own units (0 4095 for a 12-bit camera)" in told
    with pytest.raises(SystemExit) as stopped:  # where it does not apply
        main(["train", "digits", "--value-range", "0", "4095"])
    assert stopped.value.code == 2


def test_all_that_read_images_take_the_runs_range(tmp_path):
    """Training, evaluation, shards, prediction, inspection and the demo see the same pixels."""
    pytest.importorskip("webdataset")
    data, photo = tmp_path / "data", np.linspace(1000, 3000, 32 * 32).reshape(32, 32).astype(">u2")
    for split in ("train", "val"):
        (data / split / "a").mkdir(parents=True)
        Image.fromarray(photo).save(data / split / "a" / "0.tif")
    model = ModelConfig(backbone="glimpse_cnn", image_size=32, glimpse_size=8, num_glimpses=2)
    config = Config(model=model, data=FolderConfig(data=data, augmentation=NoAugmentation(), value_range=(1000, 3000)))
    write_description(tmp_path, Description(config, ["a"], 3))
    save_weights(build_model(model, num_classes=1, in_channels=3), tmp_path)
    run, file = load_run(tmp_path), data / "val/a/0.tif"
    write_shards(data, tmp_path / "shards", size=1)
    splits = open_folder(config.data, 32, seed=0)
    (prediction,) = predict(run, [file])
    assert isinstance(prediction, Prediction)
    seen = {
        "training": splits.train[0, 0].image,
        "validation": splits.val[0, 0].image,
        "shards": open_shards(config.with_data(tmp_path / "shards").data, 32, seed=0).train[0, 0].image,
        "prediction": (prediction.image * 255).round().byte(),
        "inspection": read_photo(load_run(tmp_path), file),
        "demo": make_square(file.read_bytes(), run),
        "thumbnail": from_url(thumbnail(file.read_bytes(), run, 32), run),
    }
    expected = torch.from_numpy(((photo.astype(float) - 1000) * 255 / 2000).round()).byte().expand(3, 32, 32)
    assert [name for name, image in seen.items() if not torch.equal(image, expected)] == []


def test_a_file_is_named_with_its_way_out(tmp_path):
    file = Path(tmp_path / "a.tif")
    file.write_bytes(grey([7, 8], "<f4"))
    with pytest.raises(UnreadableImageError, match=rf"^cannot read image {file}: its values, 7 to 8, are not in 0..1"):
        read_image(file)
