"""Folders as people have them: junk and other files are neither images nor classes, and one line says so."""

import json
import warnings
from pathlib import Path

import pytest
from PIL import Image

from glimpsenet.cli import main
from glimpsenet.data.config import FolderConfig
from glimpsenet.data.finding import find_images, is_junk, natural_key
from glimpsenet.data.folder import open_folder
from glimpsenet.demo.exhibit import SHIPPED
from glimpsenet.errors import DataWarning, UserError

JUNK = [
    ".DS_Store",
    "._a.png",
    ".hidden.png",
    "@eaDir",
    "__MACOSX",
    "Thumbs.db",
    "THUMBS.DB",
    "Desktop.ini",
    "$RECYCLE.BIN",
]


def test_images_of_a_folder_are_found_at_any_depth_in_order(tmp_path):
    names = ["b.png", "a/z.JPG", "a/b/c.webp", "notes.txt", "a.csv", "c.jpeg.part"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    left = r"left out 3 files with an unknown suffix \(\.csv 1, \.part 1, \.txt 1\) in "
    with pytest.warns(DataWarning, match=left):
        found = find_images(tmp_path)
    assert found == [tmp_path / name for name in ("a/b/c.webp", "a/z.JPG", "b.png")]
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


def make(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(file, "PNG")


@pytest.fixture
def littered(tmp_path) -> Path:
    """train/ and val/ of the classes 3 and 7, one image each, with junk at every level and some other files."""
    data = tmp_path / "data"
    for split in ("train", "val"):
        make(data / split / "3/a.png", data / split / "7/a.png")
        make(
            data / split / ".ipynb_checkpoints/a.png", data / split / "@eaDir/3/a.png", data / split / "3/@eaDir/a.png"
        )
        make(data / split / "3/._a.png", data / split / "7/.DS_Store", data / split / "7/Thumbs.db")
        (data / split / "README").touch()
        (data / split / "3/labels.XML").touch()
    make(data / "train/stray.png")
    make(data / "__MACOSX/train/3/._a.png")
    return data


@pytest.mark.parametrize("name", JUNK)
def test_junk_is_known_by_name(name):
    assert is_junk(name)
    assert not is_junk(f"a{name}")


def test_names_sort_by_the_numbers_in_them():
    names = ["10", "2", "a10b2", "a10b10", "a9", "a", "", "02", "٣", "x" + "9" * 200]
    assert sorted(names, key=natural_key) == ["", "02", "2", "٣", "10", "a", "a9", "a10b2", "a10b10", "x" + "9" * 200]


def test_junk_is_left_out_of_a_data_set_and_counted_once(littered):
    with pytest.warns(DataWarning) as caught:
        splits = open_folder(FolderConfig(data=littered), 8, seed=0)
    assert splits.classes == ["3", "7"]
    assert [file.relative_to(littered).as_posix() for file in splits.train.files] == ["train/3/a.png", "train/7/a.png"]
    assert splits.val.labels == [0, 1]
    train = littered / "train"
    assert [str(each.message) for each in caught] == [
        "left out 12 hidden or junk entries (@eaDir 4, .ipynb_checkpoints 2, ._* 2, .DS_Store 2, Thumbs.db 2)"
        f" in {train} and 5 other folders",
        f"left out 4 files with an unknown suffix (none 2, .xml 2) in {train} and 3 other folders",
        f"left out 1 image outside the class folders (.png 1) in {train}",
    ]


def test_rare_kinds_are_counted_together(tmp_path):
    make(tmp_path / "a.png")
    for place in range(8):
        (tmp_path / f"a.x{place}").touch()
    with pytest.warns(DataWarning, match=r"8 files with an unknown suffix \(\.x0 1, .*, \.x5 1, others 2\)"):
        find_images(tmp_path)


def test_several_folders_are_one_warning_and_files_named_outright_are_taken(littered):
    hidden = littered / "val/.ipynb_checkpoints"
    paths = [littered / "val/3", littered / "val/7", hidden, littered / "val/3/._a.png"]
    with pytest.warns(DataWarning) as caught:
        found = find_images(*paths)
    assert found == [paths[0] / "a.png", paths[1] / "a.png", hidden / "a.png", paths[3]]
    assert len(caught) == 2
    (littered / "val/3/a.png").unlink()
    with pytest.raises(
        UserError, match=r"no images in .*val/3; it holds 2 hidden or junk entries \(._\* 1, @eaDir 1\), "
    ):
        find_images(littered / "val/3")


def test_the_command_line_says_it_in_lines_of_standard_error(littered, capfd):
    with warnings.catch_warnings(record=True, action="always") as others:
        main(["predict", str(SHIPPED), str(littered / "val"), "--json", "--device", "cpu"])
    output, error = capfd.readouterr()
    assert [row["file"] for row in json.loads(output)["predictions"]] == [
        str(littered / "val" / name) for name in ("3/a.png", "7/a.png")
    ]
    assert error.splitlines() == [
        "glimpsenet: warning: left out 6 hidden or junk entries (@eaDir 2, .ipynb_checkpoints 1, ._* 1, .DS_Store 1,"
        f" Thumbs.db 1) in {littered / 'val'} and 2 other folders",
        "glimpsenet: warning: left out 2 files with an unknown suffix (none 1, .xml 1)"
        f" in {littered / 'val'} and 1 other folder",
    ]
    assert others == []


def test_each_warning_is_one_line_once_and_others_stay_as_they_are(littered, monkeypatch, capfd):
    def command(*_, **__):
        for text in ("a\nb", "a\nb", "\x1b[2J"):
            warnings.warn(text, DataWarning, stacklevel=1)
        warnings.warn("another library's", UserWarning, stacklevel=1)

    monkeypatch.setattr("glimpsenet.cli.app.run", command)
    with pytest.warns(UserWarning, match="another library's") as others:
        main([])
    assert capfd.readouterr().err.splitlines() == ["glimpsenet: warning: a b", "glimpsenet: warning: \\x1b[2J"]
    assert len(others) == 1


def test_shards_hold_no_junk(littered, tmp_path, capfd):
    main(["data", "shards", str(littered), str(tmp_path / "shards")])
    assert json.loads((tmp_path / "shards/sizes.json").read_text()) == {"train-000000.tar": 2, "val-000000.tar": 2}
    assert (tmp_path / "shards/classes.txt").read_text() == "3\n7\n"
    assert capfd.readouterr().err.count("glimpsenet: warning: left out 12 hidden or junk entries") == 1
