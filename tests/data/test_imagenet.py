import os
from pathlib import Path

import pytest

from glimpsenet.data.imagenet import CORRUPTIONS, GROUPS, SEVERITIES, Links, build_imagenet100, build_imagenet100_c
from glimpsenet.errors import DataWarning, UserError

# Made up, but for the two that are checked: 99 before n01855672, 900 after it.
CLASSES = [f"n{1440764 + k:08d}" for k in range(99)] + [f"n{1855672 + k:08d}" for k in range(901)]


def make_classes(folder: Path, classes: list[str] = CLASSES) -> None:
    folder.mkdir(parents=True)
    for name in classes:
        os.mkdir(folder / name)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    make_classes(tmp_path / "imagenet/train")
    make_classes(tmp_path / "imagenet/val")
    (tmp_path / "imagenet/train/lost+found").mkdir()
    return tmp_path / "imagenet"


def refused(source: Path, destination: Path) -> str:
    with pytest.raises(UserError) as caught:
        build_imagenet100(source, destination)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_first_hundred_classes_are_linked_and_a_second_run_keeps_them(source, tmp_path, monkeypatch):
    (source / "val/n01855672/a.JPEG").write_bytes(b"photo")
    monkeypatch.chdir(tmp_path)
    destination = Path("sub/imagenet100")
    assert build_imagenet100(Path("imagenet"), destination) == Links(200, 0)
    for split in ("train", "val"):
        assert sorted(os.listdir(destination / split)) == CLASSES[:100]
        assert all(Path(os.readlink(link)).is_absolute() for link in (destination / split).iterdir())
    assert (destination / "val/n01855672/a.JPEG").read_bytes() == b"photo"
    assert (destination / "train/n01440764").samefile(source / "train/n01440764")

    # As if the first run had been stopped half-way, and boxes had been added since.
    os.unlink(destination / "train/n01440764")
    for link in (destination / "val").iterdir():
        link.unlink()
    (destination / "val").rmdir()
    (destination / "boxes.csv").write_text("file,x0,y0,x1,y1\n")
    assert build_imagenet100(source, destination) == Links(101, 99)
    assert build_imagenet100(source, destination) == Links(0, 200)


def test_junk_is_no_class_and_in_nobodys_way(source, tmp_path):
    destination = tmp_path / "imagenet100"
    (source / "train/.DS_Store").touch()
    (source / "val/._n01440764.JPEG").touch()
    with pytest.warns(DataWarning, match=r"left out 2 hidden or junk entries \(.*\) in .*train and 1 other folder"):
        build_imagenet100(source, destination)
    (destination / "val/.DS_Store").touch()  # as a file manager leaves it on its way
    (source / "train/.DS_Store").unlink()
    with pytest.warns(DataWarning, match="left out 1 hidden or junk entry"):
        assert build_imagenet100(source, destination) == Links(0, 200)


@pytest.mark.parametrize(
    ("place", "make"),
    [
        ("train/n01440764", lambda path, source: path.symlink_to(source / "train/n01440765")),
        ("train/n01440764", lambda path, source: path.symlink_to(source / "nowhere")),
        ("val/n01440764", lambda path, source: path.mkdir()),
        ("val/n01855673", lambda path, source: path.symlink_to(source / "val/n01855673")),
        ("train/notes.txt", lambda path, source: path.write_text("mine")),
        ("test", lambda path, source: path.mkdir()),
    ],
    ids=["other class", "dangling", "real folder", "class too many", "file", "folder"],
)
def test_what_is_not_from_here_is_named_and_left_alone(source, tmp_path, place, make):
    destination = tmp_path / "imagenet100"
    (destination / place).parent.mkdir(parents=True)
    make(destination / place, source)
    before = sorted(destination.rglob("*"))
    assert str(destination / place) in refused(source, destination)
    assert sorted(destination.rglob("*")) == before


def test_nothing_is_written_into_the_source(source, tmp_path):
    assert "inside" in refused(source, source)
    assert "inside" in refused(source, source / "train/n01440764/deep")
    (tmp_path / "by_another_name").symlink_to(source)
    assert "inside" in refused(source, tmp_path / "by_another_name/new")
    # A folder of the destination that is a link into the source.
    (tmp_path / "imagenet100").mkdir()
    (tmp_path / "imagenet100/val").symlink_to(source / "val")
    assert str(tmp_path / "imagenet100/val") in refused(source, tmp_path / "imagenet100")
    assert sorted(os.listdir(source)) == ["train", "val"]
    assert len(os.listdir(source / "val")) == 1000


def test_a_folder_that_is_not_imagenet_is_refused(source, tmp_path):
    out = tmp_path / "imagenet100"
    assert "no such folder" in refused(tmp_path / "nowhere", out)
    (source / "val/n01440770").rmdir()
    assert f"{source / 'val'} lacks the class folder n01440770," in refused(source, out)
    (source / "train/n01440770").rmdir()
    assert "999 class folders" in refused(source, out)
    for split in ("train", "val"):
        (source / split / "n00000001").mkdir()
    message = refused(source, out)
    assert "n00000001" in message
    assert "n01440764" in message

    flat = tmp_path / "flat"
    (source / "train").rename(flat.with_name("moved"))
    assert f"no folder {source / 'train'}" in refused(source, out)
    (flat / "val").mkdir(parents=True)
    flat.with_name("moved").rename(flat / "train")
    (flat / "val/ILSVRC2012_val_00000001.JPEG").touch()
    assert "flat" in refused(flat, out)
    assert not out.exists()


def test_imagenet_c_links_fifteen_corruptions_flat_or_grouped(tmp_path):
    # All severities share one folder of classes: 75 of them would take seconds to make.
    make_classes(tmp_path / "classes")
    source, out = tmp_path / "imagenet-c", tmp_path / "out"
    folders = {name: source / ["", *GROUPS][k % 6] / name for k, name in enumerate([*CORRUPTIONS, "saturate"])}
    for folder in folders.values():
        folder.mkdir(parents=True)
        for severity in SEVERITIES:
            (folder / severity).symlink_to(tmp_path / "classes")
    assert build_imagenet100_c(source, out) == Links(7500, 0)
    assert sorted(os.listdir(out)) == sorted(CORRUPTIONS)
    assert sorted(os.listdir(out / "fog")) == list(SEVERITIES)
    assert sorted(os.listdir(out / "fog/3")) == CLASSES[:100]
    assert os.readlink(out / "fog/3/n01855672") == str(folders["fog"] / "3/n01855672")
    assert build_imagenet100_c(source, out) == Links(0, 7500)

    (folders["snow"] / "4").unlink()
    with pytest.raises(UserError, match=f"no folder {folders['snow'] / '4'}"):
        build_imagenet100_c(source, out)
    for name in ("fog", "contrast"):
        folders[name].rename(tmp_path / name)
    with pytest.raises(UserError, match="lacks 2 of ImageNet-C's 15 corruptions: fog, contrast;"):
        build_imagenet100_c(source, out)
