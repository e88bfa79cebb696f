from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from glimpsenet.data.images import UnreadableImageError, check_header, find_images, read_image
from glimpsenet.errors import UserError


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


def test_images_of_a_folder_are_found_at_any_depth_in_order(tmp_path):
    names = ["b.png", "a/z.JPG", "a/b/c.webp", "notes.txt", "a.csv", "c.jpeg.part"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert find_images(tmp_path) == [tmp_path / name for name in ("a/b/c.webp", "a/z.JPG", "b.png")]
    assert find_images(tmp_path / "notes.txt") == [tmp_path / "notes.txt"]  # named outright: reading it will tell


def test_nowhere_and_nothing_are_told(tmp_path):
    with pytest.raises(UserError, match=r"no such file or folder: .*absent"):
        find_images(tmp_path / "absent")
    (tmp_path / "val").mkdir()
    with pytest.raises(UserError, match=r"no such file or folder: .*/vall; did you mean 'val'\?"):
        find_images(tmp_path / "vall")
    with pytest.raises(UserError, match="name image files, or folders of them"):
        find_images(tmp_path / "no/where")
    (tmp_path / "val").rmdir()
    with pytest.raises(UserError, match="no images in"):
        find_images(tmp_path)
