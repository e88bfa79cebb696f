"""A few images of a data set are of many classes, though files come sorted by class."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glimpsenet.data import folder
from glimpsenet.data.config import DigitsConfig, FolderConfig
from glimpsenet.data.digits import DigitScenes
from glimpsenet.data.spread import read_spread, spread_over_classes, spread_over_folders
from glimpsenet.errors import UserError

SORTED = ["a"] * 100 + ["b"] * 3 + ["c"]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, {}),
        (2, None),
        (3, {"a": 1, "b": 1, "c": 1}),
        (7, {"a": 3, "b": 3, "c": 1}),
        (50, {"a": 46, "b": 3, "c": 1}),
        (104, {"a": 100, "b": 3, "c": 1}),
        (200, {"a": 100, "b": 3, "c": 1}),
    ],
)
def test_classes_have_the_same_share_as_far_as_they_have_images(count, expected):
    for seed in range(5):
        places = spread_over_classes(SORTED, count, seed)
        assert len(set(places)) == len(places) == min(count, len(SORTED))
        found = Counter(SORTED[place] for place in places)
        assert found == expected if expected is not None else max(found.values()) == 1
        assert places == spread_over_classes(SORTED, 200, seed)[:count]


def test_the_seed_chooses():
    choices = {tuple(spread_over_classes(SORTED, 6, seed)) for seed in (0, 1, 2, 0)}
    assert len(choices) == 3
    assert spread_over_classes([], 4, 0) == []


def test_sorted_files_of_all_folders_are_chosen_in_their_order():
    files = [Path(name) / f"{place}.png" for name in "abc" for place in range(40)]
    for seed in range(3):
        assert [file.parent.name for file in spread_over_folders(files, 6, seed)] == list("aabbcc")
    assert spread_over_folders(files, 6, 0) != spread_over_folders(files, 6, 1)
    for few in (files[:6], files[:2], []):
        assert spread_over_folders(few, 6, 0) == few


def test_a_batch_is_in_the_order_of_the_data_set_and_of_all_classes():
    scenes = DigitScenes(DigitsConfig(val_scenes=300), "val", 20)
    batch = read_spread(scenes, 10, seed=3)
    assert sorted(batch.labels.tolist()) == list(range(10))
    assert batch.places.tolist() == sorted(batch.places.tolist())
    assert scenes.labels == [scenes[0, place].label for place in range(300)]  # two chunks, the second one cut


def test_headers_of_all_classes_are_checked_before_training(tmp_path, monkeypatch):
    for split in ("train", "val"):
        for name in ("first", "last"):
            (tmp_path / split / name).mkdir(parents=True)
            for place in range(3):
                Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / split / name / f"{place}.png")
    for file in Path(tmp_path, "val/last").iterdir():
        file.write_text("no image")
    monkeypatch.setattr(folder, "MOST_CHECKED", 2)
    with pytest.raises(UserError, match=r"val/last/\d\.png"):
        folder.open_folder(FolderConfig(data=tmp_path), 8, seed=0)
