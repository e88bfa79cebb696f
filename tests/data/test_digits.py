import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits as load_small_digits

from glimpsenet.data.config import DigitsConfig, FolderConfig, NoAugmentation
from glimpsenet.data.digits import CLASSES, DigitScenes, draw_scenes, load_digits, open_digits, write_scenes
from glimpsenet.data.folder import open_folder
from glimpsenet.errors import DataWarning, UserError

SMALL = DigitsConfig(train_scenes=600, val_scenes=300, test_scenes=200)


def enlarge(small: np.ndarray) -> np.ndarray:
    """8 x 8 -> 16 x 16: an output pixel lies a quarter pixel from its nearest input, so it mixes 3 : 1."""
    for axis in (-2, -1):
        before = np.concatenate([small.take([0], axis), small.take(range(7), axis)], axis)
        after = np.concatenate([small.take(range(1, 8), axis), small.take([7], axis)], axis)
        pair = np.stack([0.75 * small + 0.25 * before, 0.75 * small + 0.25 * after], axis)
        shape = [*small.shape]
        shape[axis] = 16
        small = pair.reshape(shape)
    return small


def same(one, other) -> bool:
    return one.place == other.place and one.label == other.label and bool((one.image == other.image).all())


def test_digits_are_sklearns_enlarged_and_split_without_overlap():
    pixels, labels = load_small_digits(return_X_y=True)
    pictures = enlarge(pixels.reshape(-1, 8, 8) / 16)
    splits = {split: load_digits(split) for split in ("train", "val", "test")}
    assert {split: len(images) for split, (images, _) in splits.items()} == {"train": 1077, "val": 360, "test": 360}

    def count(images, names):
        keys = np.round(images * 256).astype(np.uint8)  # the enlarged values are multiples of 1/256
        return Counter((key.tobytes(), int(name)) for key, name in zip(keys, names, strict=True))

    train, val, test = (count(*part) for part in splits.values())
    assert train + val + test == count(pictures, labels)
    assert not train & val
    assert not (train + val) & test
    # val is what it was before there was a test split
    order = np.random.default_rng(0).permutation(len(labels))
    assert np.array_equal(splits["val"][1], labels[order[1437:]])


def test_a_bare_scene_is_the_digit_in_its_box_and_black_elsewhere():
    digits, labels = load_digits("val")
    scenes, drawn, boxes = draw_scenes(np.random.default_rng(3), 50, digits, labels, canvas=40, num_clutter=0, noise=0)
    assert scenes.shape == (50, 40, 40)
    for scene, label, box in zip(scenes, drawn, boxes.astype(int), strict=True):
        x0, y0, x1, y1 = box
        assert (x1 - x0, y1 - y0) == (16, 16)
        inside = scene[y0:y1, x0:x1].copy()
        assert any(np.array_equal(inside, digit) for digit in digits[labels == label])
        scene[y0:y1, x0:x1] = 0
        assert not scene.any()


def test_clutter_is_a_seven_pixel_square_laid_under_by_maximum():
    grey = np.full((1, 16, 16), 0.6, np.float32)
    scenes, _, boxes = draw_scenes(np.random.default_rng(0), 40, grey, np.zeros(1, int), num_clutter=1, noise=0)
    whole = 0
    for scene, (x0, y0, x1, y1) in zip(scenes, boxes.astype(int), strict=True):
        assert set(np.unique(scene)) == {np.float32(0), np.float32(0.6)}  # a sum would give 1
        rest = scene.copy()
        rest[y0:y1, x0:x1] = 0
        rows, columns = rest.any(1).nonzero()[0], rest.any(0).nonzero()[0]
        if len(rows):
            assert np.ptp(rows) < 7
            assert np.ptp(columns) < 7
        whole += rest.astype(bool).sum() == 49
    assert whole > 25  # the digit covers few of them


def test_noise_is_gaussian_and_clipped():
    black = np.zeros((1, 16, 16), np.float32)
    scenes, _, _ = draw_scenes(np.random.default_rng(0), 20, black, np.zeros(1, int), num_clutter=0, noise=0.05)
    positive = scenes[scenes > 0]
    assert positive.size / scenes.size == pytest.approx(0.5, abs=0.01)  # the negative half is clipped
    assert np.sqrt((positive**2).mean()) == pytest.approx(0.05, rel=0.02)


def test_many_scenes_stay_in_range_with_corners_and_digits_spread_evenly():
    digits, labels = load_digits("train")
    scenes, drawn, boxes = draw_scenes(np.random.default_rng(0), 2000, digits, labels, canvas=24, noise=0.2)
    assert scenes.dtype == np.float32
    assert scenes.min() == 0
    assert scenes.max() == 1
    for edge in range(2):  # 24 - 16 + 1 = 9 places; chi-squared with 8 degrees of freedom is below 26 in 99.9%
        counts = np.bincount(boxes[:, edge].astype(int), minlength=9)
        assert counts.shape == (9,)
        assert ((counts - 2000 / 9) ** 2 / (2000 / 9)).sum() < 26
    assert abs(np.corrcoef(boxes[:, 0], boxes[:, 1])[0, 1]) < 0.1
    shares = np.bincount(drawn, minlength=10) / 2000
    np.testing.assert_allclose(shares, np.bincount(labels) / len(labels), atol=0.03)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_scene_does_not_depend_on_the_order_of_access(split):
    addresses = [(epoch, index) for epoch in (0, 3) for index in (0, 255, 256, 299)]
    forward, backward = (DigitScenes(SMALL, split, canvas=20, seed=5) for _ in range(2))
    there = {address: forward[address] for address in addresses}
    back = {address: backward[address] for address in reversed(addresses)}
    assert all(same(there[address], back[address]) for address in addresses)
    assert not same(there[0, 0], there[0, 256]._replace(place=0))


def test_training_scenes_are_new_in_every_epoch_and_follow_the_seed():
    scenes, again, other = (DigitScenes(SMALL, "train", canvas=20, seed=seed) for seed in (1, 1, 2))
    assert same(scenes[4, 7], again[4, 7])
    assert not same(scenes[4, 7], scenes[5, 7])
    assert not same(scenes[4, 7], other[4, 7])


def test_validation_scenes_are_always_the_same():
    splits, other = (open_digits(SMALL, 20, seed=seed) for seed in (1, 2))
    assert (len(splits.train), len(splits.val), len(splits.test)) == (600, 300, 200)
    for ours, theirs in ((splits.val, other.val), (splits.test, other.test)):
        assert same(ours[0, 7], ours[9, 7])
        assert same(ours[0, 7], theirs[0, 7])
    assert not same(splits.val[0, 7], splits.test[0, 7])


def test_a_sample_is_a_grey_image_with_label_and_box():
    splits = open_digits(DigitsConfig(train_scenes=5, val_scenes=5, num_clutter=0, noise=0), 32, seed=0)
    assert (splits.classes, splits.channels, splits.val.has_boxes) == (CLASSES, 1, True)
    sample = splits.train[0, 4]
    assert (sample.place, sample.photo_size, sample.image.shape) == (4, (32, 32), (1, 32, 32))
    assert sample.image.dtype == torch.float32
    x0, y0, x1, y1 = sample.box.int().tolist()
    assert sample.image[0, y0:y1, x0:x1].sum() == sample.image.sum() > 0


def test_a_canvas_that_cannot_hold_a_digit_is_refused():
    assert DigitScenes(SMALL, "train", canvas=16)[0, 0].box.tolist() == [0, 0, 16, 16]
    with pytest.raises(UserError, match="image_size of 16 or more, got 15"):
        DigitScenes(SMALL, "train", canvas=15)


def test_written_scenes_are_read_back_with_the_same_pixels_boxes_and_labels(tmp_path: Path):
    config = DigitsConfig(train_scenes=60, val_scenes=20, test_scenes=10)
    assert write_scenes(tmp_path / "new/digits", config, 32, seed=3) == 90
    with open(tmp_path / "new/digits/boxes.csv", newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 90
    with pytest.warns(DataWarning, match="no images of 2 classes in val/"):  # 20 scenes drawn from ten digits
        read = open_folder(
            FolderConfig(data=tmp_path / "new/digits", augmentation=NoAugmentation()), 32, seed=0, channels=1
        )
    made = open_digits(config, 32, seed=3)
    assert read.classes == CLASSES
    for mine, theirs, size in ((read.train, made.train, 60), (read.val, made.val, 20), (read.test, made.test, 10)):
        assert mine.has_boxes
        assert len(mine) == size
        for index in range(size):
            sample = mine[0, index]
            scene = theirs[0, int(mine.files[index].stem)]
            assert sample.label == scene.label
            assert sample.box.tolist() == scene.box.tolist()
            assert (sample.image.float() / 255 - scene.image).abs().max() <= 0.5 / 255 + 1e-6


def test_scenes_are_not_written_over_anything(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="is not an empty folder"):
        write_scenes(tmp_path, DigitsConfig(train_scenes=1, val_scenes=1), 20, seed=0)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_a_file_in_place_of_the_destination_is_a_user_error(tmp_path: Path):
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png"):
        write_scenes(tmp_path / "a.png", DigitsConfig(train_scenes=1, val_scenes=1), 20, seed=0)
