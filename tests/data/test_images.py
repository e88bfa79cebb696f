from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from glimpsenet.data import images
from glimpsenet.data.finding import find_images
from glimpsenet.data.images import EXTENSIONS, check_header, decode_image, read_image
from glimpsenet.errors import UnreadableImageError, UserError


def colours(file: Path) -> list[list[int]]:
    """The pixels of the first row, as RGB."""
    image = read_image(file)
    assert image.dtype == torch.uint8
    assert image.shape[0] == 3
    return image[:, 0].T.tolist()


def test_grey_becomes_three_equal_channels(tmp_path):
    Image.fromarray(np.array([[0, 100, 255]], np.uint8)).save(tmp_path / "a.png")
    assert colours(tmp_path / "a.png") == [[0, 0, 0], [100, 100, 100], [255, 255, 255]]


def test_rows_and_columns_stay_what_they_are(tmp_path):
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png").permute(1, 2, 0), pixels)


def test_one_channel_is_the_luma_of_the_colours(tmp_path):
    Image.fromarray(np.array([[[200, 100, 50], [0, 0, 255]]], np.uint8)).save(tmp_path / "a.png")
    grey = read_image(tmp_path / "a.png", channels=1)
    assert grey.shape == (1, 1, 2)
    for value, expected in zip(grey.flatten().tolist(), [0.299 * 200 + 0.587 * 100 + 0.114 * 50, 29.07], strict=True):
        assert abs(value - expected) <= 1


def test_transparent_palette_colour_is_laid_on_white(tmp_path):
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 200, 0, 0, 0, 0, 250])
    image.putdata([0, 1, 2])
    image.save(tmp_path / "plain.png")
    image.save(tmp_path / "a.png", transparency=1)
    image.save(tmp_path / "a.gif", transparency=1)
    assert colours(tmp_path / "plain.png") == [[10, 20, 30], [200, 0, 0], [0, 0, 250]]
    for name in ("a.png", "a.gif"):
        assert colours(tmp_path / name) == [[10, 20, 30], [255, 255, 255], [0, 0, 250]]


def test_alpha_is_blended_with_white(tmp_path):
    pixels = np.array([[[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 51]]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    solid, clear, fifth = colours(tmp_path / "a.png")
    assert solid == [200, 100, 0]
    assert clear == [255, 255, 255]
    np.testing.assert_allclose(fifth, [255 + (colour - 255) / 5 for colour in (200, 100, 0)], atol=1)


def test_grey_with_alpha_is_blended_with_white(tmp_path):
    image = Image.new("LA", (2, 1))
    image.putdata([(100, 255), (100, 0)])
    image.save(tmp_path / "a.png")
    assert colours(tmp_path / "a.png") == [[100] * 3, [255] * 3]
    assert read_image(tmp_path / "a.png", channels=1).flatten().tolist() == [100, 255]


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_printing_colours_become_rgb(tmp_path, suffix):
    image = Image.new("CMYK", (64, 16))
    for place, ink in enumerate([(0, 0, 0, 0), (255, 0, 0, 0), (0, 255, 255, 0), (0, 0, 0, 255)]):
        image.paste(ink, (16 * place, 0, 16 * place + 16, 16))
    image.save(tmp_path / f"a.{suffix}")
    found = colours(tmp_path / f"a.{suffix}")[8::16]
    expected = [[255, 255, 255], [0, 255, 255], [255, 0, 0], [0, 0, 0]]
    np.testing.assert_allclose(found, expected, atol=4)  # JPEG loses a little


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path, suffix):
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    image = read_image(tmp_path / f"a.{suffix}")
    assert (image[0, 0, 0], image[0, -1, -1]) == (0, 255)
    assert image[0, 128, 0] in (127, 128)
    assert np.abs(image.numpy() - values / 257).max() <= 1
    assert torch.equal(image[0], image[2])


def test_wide_grey_of_netpbm_is_scaled_too(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5 3 1 65535\n" + np.array([0, 32768, 65535], ">u2").tobytes())
    low, middle, high = read_image(tmp_path / "a.pgm", channels=1).flatten().tolist()
    assert (low, high) == (0, 255)
    assert middle in (127, 128)


def test_photos_are_turned_upright(tmp_path):
    image = Image.new("RGB", (64, 32), "white")
    image.paste("red", (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored rows are the picture's columns, from right to left
    image.save(tmp_path / "a.jpg", exif=exif, quality=95)
    upright = read_image(tmp_path / "a.jpg").int()
    assert upright.shape == (3, 64, 32)
    red = (upright[0] > 150) & (upright[1] < 100)
    assert red[:15, 17:].all()
    assert not red[:, :15].any()
    assert not red[17:].any()


def make_truncated_photo(file: Path) -> None:
    pixels = np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, format="JPEG")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


BROKEN = {
    "half a photo": make_truncated_photo,
    "text": lambda file: file.write_text("this is\nno image"),
    "nothing": lambda file: file.write_bytes(b""),
    "a folder": lambda file: file.mkdir(),
    "absent": lambda file: None,
}


@pytest.mark.parametrize("make", BROKEN.values(), ids=BROKEN)
def test_what_is_no_image_is_named_in_one_line(tmp_path, make):
    file = tmp_path / "photo.jpg"
    make(file)
    with pytest.raises(UnreadableImageError) as caught:
        read_image(file)
    assert str(caught.value).startswith(f"cannot read image {file}: ")
    assert str(caught.value).count("photo.jpg") == 1
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, UserError)


def test_what_is_no_image_is_called_so(tmp_path):
    (tmp_path / "photo.jpg").write_text("this is\nno image")
    for look in (read_image, check_header):
        with pytest.raises(UnreadableImageError, match=r"photo\.jpg: the file is not an image of a known format$"):
            look(tmp_path / "photo.jpg")
    make_truncated_photo(tmp_path / "half.jpg")
    check_header(tmp_path / "half.jpg")  # its beginning is whole


# ---- formats -------------------------------------------------------------------------------------------------------

WRITERS = {
    **dict.fromkeys((".jpg", ".jpeg", ".jfif"), "JPEG"),
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    **dict.fromkeys((".jp2", ".j2k"), "JPEG2000"),
    **dict.fromkeys((".ppm", ".pgm"), "PPM"),
    **dict.fromkeys((".heic", ".heif"), "HEIF"),
    **{f".{name.lower()}": name for name in ("PNG", "WEBP", "BMP", "GIF", "AVIF", "MPO")},
}


@pytest.mark.parametrize("suffix", EXTENSIONS)
def test_formats_are_read_whatever_the_case_of_their_suffix(tmp_path, suffix):
    picture = Image.new("RGB", (32, 16), "white")
    picture.paste((200, 0, 0), (0, 0, 16, 16))
    second = Image.new("RGB", (32, 16), "blue")  # of formats that hold several, the first is taken
    several = {"save_all": True, "append_images": [second]} if suffix in (".gif", ".mpo", ".tif", ".webp") else {}
    file = tmp_path / f"a{suffix.upper()}"
    picture.convert("L" if suffix == ".pgm" else "RGB").save(file, WRITERS[suffix], **several)
    assert find_images(tmp_path) == [file]
    left, right = colours(file)[4], colours(file)[28]
    np.testing.assert_allclose(left, [60] * 3 if suffix == ".pgm" else [200, 0, 0], atol=12)
    np.testing.assert_allclose(right, [255] * 3, atol=12)


def test_photos_of_phones_are_upright(tmp_path):
    picture = Image.new("RGB", (64, 32), "white")
    picture.paste("red", (0, 0, 16, 16))
    picture.getexif()[0x0112] = 6
    picture.save(tmp_path / "a.heic")
    upright = read_image(tmp_path / "a.heic").int()
    assert upright.shape == (3, 64, 32)
    assert ((upright[0] > 150) & (upright[1] < 100))[:15, 17:].all()


def test_without_the_extra_heif_is_named_and_not_its_suffix(tmp_path, monkeypatch):
    Image.new("RGB", (32, 16)).save(tmp_path / "a.heic")
    (tmp_path / "renamed.jpg").write_bytes((tmp_path / "a.heic").read_bytes())
    Image.new("RGB", (32, 16)).save(tmp_path / "photo.heic", "JPEG")
    monkeypatch.setattr(images, "FORMATS", tuple(name for name in images.FORMATS if name != "HEIF"))
    for name in ("a.heic", "renamed.jpg"):
        for look in (read_image, check_header):
            with pytest.raises(UnreadableImageError) as caught:
                look(tmp_path / name)
            way = "reading HEIF needs pillow-heif: pip install 'glimpsenet[heif]'"
            assert str(caught.value) == f"cannot read image {tmp_path / name}: {way}"
    with pytest.raises(UnreadableImageError, match=r"glimpsenet\[heif\]"):
        decode_image((tmp_path / "a.heic").read_bytes())
    assert read_image(tmp_path / "photo.heic").shape == (3, 16, 32)
