import os
import random
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from glimpsenet.data.config import FolderConfig, ImageNetAugmentation, LightAugmentation, NoAugmentation
from glimpsenet.data.folder import PhotoDataset, open_folder, read_boxes
from glimpsenet.data.sample import collate
from glimpsenet.data.transforms import FitSquare
from glimpsenet.errors import DataWarning, UserError


def make_photo(file: Path, width: int = 8, height: int = 6) -> Path:
    """A photo of random pixels that depend on its name."""
    file.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(list(file.name.encode()))
    Image.fromarray(rng.integers(256, size=(height, width, 3), dtype=np.uint8)).save(file)
    return file


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """train/{cat,dog} with two photos each, val/{cat,dog} with one."""
    for name in ("train/cat/a", "train/cat/b", "train/dog/c", "train/dog/d", "val/cat/e", "val/dog/f"):
        make_photo(tmp_path / f"data/{name}.png")
    return tmp_path / "data"


def open_plain(data: Path, **settings):
    return open_folder(FolderConfig(data=data, augmentation=NoAugmentation()), 8, seed=0, **settings)


def refusal(data: Path) -> str:
    with pytest.raises(UserError) as caught:
        open_plain(data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def remove(folder: Path) -> None:
    for file in sorted(folder.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()


# ---- folders -------------------------------------------------------------------------------------------------------


def test_files_labels_and_classes_follow_the_folders_in_order(data):
    make_photo(data / "train/dog/deeper/x.JPG")
    (data / "train/dog/notes.txt").write_text("not an image")
    with pytest.warns(DataWarning, match=r"left out 1 file with an unknown suffix \(\.txt 1\) in .*train/dog$"):
        splits = open_plain(data)
    assert (splits.classes, splits.channels, splits.val.has_boxes) == (["cat", "dog"], 3, False)
    assert [file.name for file in splits.train.files] == ["a.png", "b.png", "c.png", "d.png", "x.JPG"]
    assert splits.train.labels == [0, 0, 1, 1, 1]
    assert [splits.val[0, index].label for index in range(2)] == [0, 1]


def test_missing_data_folder(tmp_path):
    assert "no such data folder: " + str(tmp_path / "absent") in refusal(tmp_path / "absent")


@pytest.mark.parametrize("split", ["train", "val"])
def test_missing_split(data, split):
    (data / split).rename(data / "elsewhere")
    assert f"no folder {data / split};" in refusal(data)


@pytest.mark.parametrize("split", ["train", "val"])
def test_split_without_classes(data, split):
    remove(data / split)
    assert f"no class folders in {data / split};" in refusal(data)


@pytest.mark.parametrize("split", ["train", "val"])
def test_split_without_images(data, split):
    for file in (data / split).rglob("*.png"):
        file.unlink()
    assert f"no images in {data / split};" in refusal(data)


def test_class_in_val_only(data):
    make_photo(data / "val/zebra/z.png")
    message = refusal(data)
    assert "'zebra'" in message
    assert str(data / "val") in message


def test_class_without_training_images(data):
    (data / "train/emu").mkdir()
    assert f"without images: {data / 'train/emu'}" in refusal(data)


def test_a_class_left_without_images_lists_what_was_skipped(data):
    for name in (
        "emu/a.heics",
        "emu/b.HEICS",
        "emu/notes.txt",
        "emu/noise",
        "emu/Thumbs.db",
        "emu/._a.jpg",
        "gnu/.x.png",
    ):
        (data / "train" / name).parent.mkdir(exist_ok=True)
        (data / "train" / name).touch()
    assert refusal(data) == (
        f"class folder without images: {data / 'train/emu'} holds 2 hidden or junk entries (._* 1, Thumbs.db 1), "
        "4 files with an unknown suffix (.heics 2, none 1, .txt 1), and 1 more such; add some or remove it"
    )


def test_classes_without_images_are_one_warning(data):
    for name in ("train/emu/a.png", "test/dog/a.png"):
        make_photo(data / name)
    (data / "val/emu").mkdir()
    with pytest.warns(DataWarning) as caught:
        open_plain(data)
    assert [str(each.message) for each in caught] == [
        "no images of 1 class in val/ (emu) and of 2 classes in test/ (cat, emu): their accuracy cannot be measured"
    ]


@pytest.mark.parametrize("other", ["validation", "valid", "dev", "Val"])
def test_a_missing_split_names_the_folder_that_may_be_meant(data, other):
    (data / "val").rename(data / other)
    assert refusal(data) == f"no folder {data / 'val'}; {data / other} is there: rename it to val"


def test_a_missing_split_names_class_folders_without_splits_and_folders_too_deep(data):
    assert refusal(data / "train") == (
        f"no folder {data / 'train/train'}; {data / 'train'} holds class folders without splits, cat, dog:"
        " put them into train/ and val/"
    )
    assert refusal(data.parent) == (
        f"no folder {data.parent / 'train'}; there is {data / 'train'}: name the folder {data}"
    )
    remove(data / "val")
    (data / "val").rmdir()
    assert refusal(data) == f"no folder {data / 'val'}; images go into val/CLASS/; {data} holds train"


def test_classes_are_in_natural_order_and_a_run_keeps_its_own(data):
    for split in ("train", "val"):
        remove(data / split)
        for name in ("10", "2", "1b", "1a10", "1a9"):
            make_photo(data / split / name / "a.png")
    splits = open_plain(data)
    assert splits.classes == ["1a9", "1a10", "1b", "2", "10"]
    assert [file.parent.name for file in splits.train.files] == splits.classes
    assert splits.train.labels == splits.val.labels == [0, 1, 2, 3, 4]
    old = sorted(splits.classes)
    assert old == ["10", "1a10", "1a9", "1b", "2"]
    for train in (False, True):
        splits = open_plain(data, classes=old, train=train)
        assert splits.classes == old
        assert [file.parent.name for file in splits.val.files] == old
    assert [file.parent.name for file in splits.train.files] == old
    make_photo(data / "train/3/a.png")
    with pytest.raises(UserError, match=r"class '3' is in .*train but not among the trained ones"):
        open_plain(data, classes=old, train=True)


def test_val_may_lack_a_class(data):
    remove(data / "val/cat")
    (data / "val/cat").rmdir()
    with pytest.warns(DataWarning, match=r"^no images of 1 class in val/ \(cat\): their accuracy cannot be measured$"):
        splits = open_plain(data)
    assert splits.classes == ["cat", "dog"]
    assert splits.val.labels == [1]


def test_with_known_classes_only_val_is_needed(data):
    remove(data / "train")
    with pytest.warns(DataWarning, match=r"no images of 1 class in val/ \(ant\)"):
        splits = open_plain(data, classes=["ant", "cat", "dog"], channels=1)
    assert splits.train is None
    assert splits.classes == ["ant", "cat", "dog"]
    assert splits.val.labels == [1, 2]
    assert splits.val[0, 0].image.shape == (1, 8, 8)


# ---- boxes.csv -----------------------------------------------------------------------------------------------------


def test_boxes_are_read_by_column_name_and_other_columns_ignored(data):
    lines = ["y1,author,x0,y0,x1,file", "6,me,0,1.5,4,train/cat/a.png", "5,,1,2,3,./val/dog/f.png"]
    (data / "boxes.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())  # as Excel writes it
    boxes = read_boxes(data / "boxes.csv", data)
    assert {file: box.tolist() for file, box in boxes.items()} == {
        data / "train/cat/a.png": [0, 1.5, 4, 6],
        data / "val/dog/f.png": [1, 2, 3, 5],
    }


@pytest.mark.parametrize("spelling", ["data", "./data", "data/", "other/../data"])
def test_boxes_belong_to_the_images_however_the_folder_is_spelt(data, spelling, monkeypatch):
    (data.parent / "other").mkdir()
    monkeypatch.chdir(data.parent)
    (data / "boxes.csv").write_text("file,x0,y0,x1,y1\nval/dog/f.png,1,2,3,5\n")
    splits = open_folder(FolderConfig(data=Path(spelling), augmentation=NoAugmentation()), 8, seed=0)
    assert splits.val.has_boxes
    assert splits.val[0, 1].box.tolist() == [1, 3, 3, 6]  # 8 x 6 photo, one row of padding above


def test_test_images_are_measured_on_where_there_are_any(data):
    splits = open_plain(data)
    assert splits.test is None
    assert splits.held_out() == ("val", splits.val)
    with pytest.raises(UserError, match="no test images"):
        splits.held_out("test")
    make_photo(data / "test/dog/z.png")
    with pytest.warns(DataWarning, match=r"no images of 1 class in test/ \(cat\)"):
        splits = open_plain(data)
    assert (splits.test.files, splits.test.labels) == ([data / "test/dog/z.png"], [1])
    assert splits.held_out() == ("test", splits.test)
    assert splits.held_out("val") == ("val", splits.val)
    make_photo(data / "test/zebra/z.png")
    assert "'zebra'" in refusal(data)


def test_boxes_of_training_images_are_no_boxes_of_validation_images(data):
    (data / "boxes.csv").write_text("file,x0,y0,x1,y1\ntrain/dog/c.png,1,2,3,5\n")
    splits = open_plain(data)
    assert (splits.train.has_boxes, splits.val.has_boxes) == (True, False)
    assert splits.train[0, 2].box.tolist() == [1, 3, 3, 6]
    assert splits.train[0, 3].box.isnan().all()


BAD_ROWS = {
    "not a number": ("val/dog/f.png,1,two,3,5", "must be numbers"),
    "no number": ("val/dog/f.png,1,2,,5", "must be numbers"),
    "row too short": ("val/dog/f.png,1,2", "must be numbers"),
    "nan": ("val/dog/f.png,1,2,nan,5", "a box needs"),
    "infinite": ("val/dog/f.png,1,2,inf,5", "a box needs"),
    "no width": ("val/dog/f.png,3,2,3,5", "a box needs"),
    "upside down": ("val/dog/f.png,1,5,3,2", "a box needs"),
    "negative": ("val/dog/f.png,-1,2,3,5", "a box needs"),
    "unknown file": ("val/dog/absent.png,1,2,3,5", "no such image 'val/dog/absent.png'"),
    "a folder": ("val/dog,1,2,3,5", "no such image 'val/dog'"),
    "no file": (",1,2,3,5", "no file named"),
    "twice": ("train/cat/../cat/a.png,1,2,3,5", "has a box already"),
    "a name longer than names can be": ("x" * 300 + ".png,1,2,3,5", "no such image"),
}


@pytest.mark.parametrize(("row", "reason"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_bad_row_is_named(data, row, reason):
    (data / "boxes.csv").write_text(f"file,x0,y0,x1,y1\ntrain/cat/a.png,0,0,4,4\n{row}\n")
    message = refusal(data)
    assert message.startswith(f"{data / 'boxes.csv'}, row 3: ")
    assert reason in message


@pytest.mark.parametrize("header", ["file,x0,y0,x1", "train/cat/a.png,0,0,4,4", ""])
def test_missing_columns_are_named(data, header):
    (data / "boxes.csv").write_text(f"{header}\n")
    assert refusal(data) == f"{data / 'boxes.csv'}: the first row must name the columns file,x0,y0,x1,y1"


def test_boxes_in_another_encoding_are_refused(data):
    (data / "boxes.csv").write_bytes("file,x0,y0,x1,y1\nval/dög.png,1,2,3,5\n".encode("latin-1"))
    assert f"{data / 'boxes.csv'} is not CSV in UTF-8" in refusal(data)


NAMES = st.one_of(
    st.sampled_from(["a.png", "./a.png", "", ".", "..", "/", "a.png/", '"', "\0", "n" * 300]), st.text(max_size=12)
)
EDGES = st.one_of(st.integers(-1, 3).map(str), st.sampled_from(["nan", "1e400", "1e300", "1e-60", "", "1_0", "x"]))
BOXES = st.tuples(NAMES, EDGES, EDGES, EDGES, EDGES).map(",".join)
ROWS = st.lists(st.one_of(BOXES, BOXES, st.text(max_size=30)), max_size=4).map("\n".join)


@example(b"file,x0,y0,x1,y1\na.png,0,0,1e-60,1")  # no width in float32
@example(b"file,x0,y0,x1,y1\na.png,0,0,1e300,1")  # infinite in float32
@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.one_of(st.binary(max_size=60), ROWS.map(lambda rows: f"file,x0,y0,x1,y1\n{rows}".encode(errors="replace"))))
def test_whatever_is_in_boxes_csv_it_is_read_or_refused(content):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "a.png").touch()
        (root / "boxes.csv").write_bytes(content)
        try:
            boxes = read_boxes(root / "boxes.csv", root)
        except UserError as error:
            assert str(root / "boxes.csv") in str(error)  # noqa: PT017
        else:
            for file, box in boxes.items():
                assert os.path.samefile(file, root / "a.png")
                assert (box[:2] < box[2:]).all()
                assert box.isfinite().all()


# ---- from photos to squares ----------------------------------------------------------------------------------------

# Photo, box in it, side of the square, box in the square; worked out by hand.
CARRIED = {
    "landscape": ((200, 100), [50, 20, 150, 60], 40, [10, 14, 30, 22]),  # a fifth, 10 rows of padding above
    "portrait": ((100, 200), [20, 50, 60, 150], 40, [14, 10, 22, 30]),
    "enlarged": ((20, 10), [5, 0, 10, 10], 40, [10, 10, 20, 30]),
    "rounded": ((30, 20), [3, 5, 15, 10], 40, [4, 12.75, 20, 19.5]),  # 40 x 27, 6 rows above, 7 below
    "odd padding": ((8, 5), [0, 0, 8, 5], 8, [0, 1, 8, 6]),  # one row above, two below
    "partly outside": ((200, 100), [150, 50, 300, 120], 40, [30, 20, 40, 30]),
}


@pytest.mark.parametrize(("photo", "box", "size", "expected"), CARRIED.values(), ids=CARRIED)
def test_boxes_are_carried_into_the_square(tmp_path, photo, box, size, expected):
    file = make_photo(tmp_path / "a.png", *photo)
    dataset = PhotoDataset([file], [0], FitSquare(size), boxes={file: torch.tensor(box).float()})
    sample = dataset[0, 0]
    assert sample.box.tolist() == pytest.approx(expected, abs=1e-4)
    assert sample.photo_size == photo
    assert sample.image.shape == (3, size, size)


def test_boxes_are_carried_through_the_papers_crop(tmp_path):
    file = make_photo(tmp_path / "a.png", 128, 64)  # short side 64 = 56 * 256 / 224, then 36 columns and 4 rows go
    boxes = {file: torch.tensor([40.0, 10, 80, 70])}
    sample = PhotoDataset([file], [0], ImageNetAugmentation().evaluation_transform(56), boxes=boxes)[0, 0]
    assert sample.box.tolist() == [4, 6, 44, 56]
    pixels = np.asarray(Image.open(file))
    assert np.array_equal(sample.image.permute(1, 2, 0), pixels[4:60, 36:92])
    gone = PhotoDataset(
        [file], [0], ImageNetAugmentation().evaluation_transform(56), boxes={file: torch.tensor([0.0, 0, 30, 64])}
    )
    assert gone[0, 0].box.isnan().all()  # out of sight: as if unknown


def test_small_photos_are_enlarged_onto_grey(tmp_path):
    Image.new("RGB", (8, 4), "white").save(tmp_path / "a.png")
    image = PhotoDataset([tmp_path / "a.png"], [0], FitSquare(16))[0, 0].image
    assert image.dtype == torch.uint8
    assert (image[:, 4:12] == 255).all()
    assert (image[:, :4] == 127).all()
    assert (image[:, 12:] == 127).all()


@pytest.mark.parametrize("photo", [(400, 2), (2, 400), (1, 1)])
def test_photos_however_thin_fit_into_the_square(tmp_path, photo):
    file = make_photo(tmp_path / "a.png", *photo)
    assert PhotoDataset([file], [0], FitSquare(16))[0, 0].image.shape == (3, 16, 16)


# ---- samples -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("boxes", [True, False])
@pytest.mark.parametrize("augmentation", [LightAugmentation(), ImageNetAugmentation()])
def test_augmentation_follows_from_seed_epoch_and_index_alone(data, augmentation, boxes):
    photo = make_photo(data / "val/cat/e.png", 40, 30).read_bytes()
    names = ["train/cat/a.png", "train/cat/b.png", "train/dog/c.png", "train/dog/d.png"]
    for name in names:
        (data / name).write_bytes(photo)
    if boxes:
        rows = [f"{name},10,10,30,20" for name in names]
        (data / "boxes.csv").write_text("\n".join(["file,x0,y0,x1,y1", *rows]))

    def load(epoch: int, index: int, seed: int = 1) -> torch.Tensor:
        splits = open_folder(FolderConfig(data=data, augmentation=augmentation), 32, seed)
        image = splits.train[epoch, index].image
        assert image.shape == (3, 32, 32)
        return image

    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    first = load(5, 2)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[1:]
    torch.manual_seed(99)
    load(0, 0)
    assert torch.equal(load(5, 2), first)
    for other in (load(6, 2), load(5, 1), load(5, 2, seed=2)):
        assert not torch.equal(other, first)


def test_boxes_move_with_light_augmentation(tmp_path):
    """The middle of a black square on white is where its augmented box says."""
    image = Image.new("RGB", (64, 64), "white")
    image.paste("black", (20, 24, 32, 36))
    image.save(tmp_path / "a.png")
    boxes = {tmp_path / "a.png": torch.tensor([20.0, 24, 32, 36])}
    dataset = PhotoDataset([tmp_path / "a.png"], [0], LightAugmentation().training_transform(64), boxes=boxes)
    middles = set()
    for epoch in range(8):
        sample = dataset[epoch, 0]
        brightness = sample.image.int().sum(0)  # jitter keeps at least 0.7 * 0.7 of the 3 * 127 between black and grey
        found = (brightness < brightness.min() + 90).nonzero().float().mean(0).flip(0) + 0.5
        middle = (sample.box[:2] + sample.box[2:]) / 2
        assert (found - middle).abs().max() < 1
        middles.add(tuple(middle.round().tolist()))
    assert len(middles) > 5


def test_a_box_outside_its_photo_is_a_problem_of_the_sample(tmp_path):
    file = make_photo(tmp_path / "a.png", 8, 6)
    for box in ([8.0, 0, 9, 6], [0.0, 6, 8, 7]):
        sample = PhotoDataset([file], [3], FitSquare(8), boxes={file: torch.tensor(box)})[0, 0]
        assert sample.image is None
        assert sample.problem == f"the box of {file} lies outside its 8 x 6 pixels"


def test_an_unreadable_file_is_a_sample_with_a_problem_and_left_out_of_the_batch(tmp_path):
    (tmp_path / "bad.png").write_text("no image")
    files = [make_photo(tmp_path / "a.png"), tmp_path / "bad.png", make_photo(tmp_path / "c.png", 6, 8)]
    dataset = PhotoDataset(files, [4, 5, 6], FitSquare(8))
    samples = [dataset[0, index] for index in range(3)]
    assert (samples[1].place, samples[1].image, samples[1].label) == (1, None, 5)
    batch = collate(samples)
    assert (batch.places.tolist(), batch.labels.tolist()) == ([0, 2], [4, 6])
    assert torch.equal(batch.images, torch.stack([samples[0].image, samples[2].image]))
    assert batch.photo_sizes.tolist() == [[8, 6], [6, 8]]
    assert batch.boxes.shape == (2, 4)
    assert batch.problems == [samples[1].problem]
    assert str(tmp_path / "bad.png") in samples[1].problem


def test_a_batch_of_unreadable_files_is_empty():
    sample = PhotoDataset([Path("absent.png")], [0], FitSquare(8))[0, 0]
    batch = collate([sample, sample])
    assert [len(field) for field in batch] == [0, 0, 0, 0, 0, 2, 0]


def test_a_misspelt_class_is_told_with_the_nearest_there_is(data):
    make_photo(data / "val/dogs/g.png")
    assert "class 'dogs' is in" in refusal(data)
    assert refusal(data).endswith("did you mean 'dog'?")
