"""``glimpsenet inspect``, end to end on a tiny run."""

import json
from pathlib import Path

import pytest

from glimpsenet.cli import main
from glimpsenet.errors import SettingError
from glimpsenet.inspection.injection import parse_windows


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspect")
    main(["data", "digits", str(folder / "scenes"), "--train-scenes", "1", "--val-scenes", "4"])
    size = ["--image-size", "40", "--glimpse-size", "12", "--train-scenes", "16", "--val-scenes", "4"]
    main(["train", "digits", *size, "--max-steps", "2", "--batch-size", "4", "--out", str(folder / "run")])
    return folder


@pytest.fixture
def inspect(run, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    image = sorted((run / "scenes" / "val").rglob("*.png"))[0]

    def call(command: str, *flags: str, file: Path = image) -> str:
        main(["inspect", command, str(run / "run"), str(file), "--device", "cpu", *flags])
        return capsys.readouterr().out

    return call


def test_every_tool_writes_what_it_says(inspect, tmp_path):
    assert "drew arrows.png" in inspect("arrows", "--label", "3", "--loss", "auxiliary")
    told = inspect("sweep", "--points", "5", "--gif")
    assert "R^2" in told
    assert {file.name for file in (tmp_path / "sweep").iterdir()} >= {"sweep.png"}
    assert "drew field.png" in inspect("field", "--points", "3", "--set", "2=0.4,0,0")
    told = inspect("inject", "--set", "2=0.3,-0.5,0.1", "4=0.4,0,0")
    assert "the model's windows" in told
    for name in ("arrows.png", "field.png", "inject.png", "sweep/sweep.png"):
        assert (tmp_path / name).stat().st_size > 5000


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["arrows", "--label", "cat"], "no class 'cat'"),
        (["sweep", "--glimpse", "9"], "no glimpse 9: the model takes glimpses 1 to 4"),
        (["sweep", "--points", "1"], "two points or more, got 1"),
        (["sweep", "--glimpse", "1", "--parameter", "tx"], "no room to sweep tx"),
        (["sweep", "--set", "2=1,0.9,0", "--allow-outside"], "allows only 0; no room to sweep ty"),
        (["arrows", "--set", "2=0.3,0.9,0"], "extends outside the image: |tx| and |ty| must be at most 1 - s = 0.7"),
        (["inject", "--set", "7=0.3,0,0"], "no glimpse 7"),
        (["inject", "--set", "nonsense"], "cannot read the window 'nonsense': use GLIMPSE=s,tx,ty"),
    ],
)
def test_what_cannot_be_is_wrong_usage_told_in_one_line(inspect, capsys, flags, told):
    with pytest.raises(SystemExit) as stop:
        inspect(*flags)
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip()
    assert told in error
    assert "\n" not in error


@pytest.mark.parametrize("command", [["arrows"], ["sweep", "--points", "3"], ["field", "--points", "2"]])
def test_the_loss_is_that_of_the_folders_class(inspect, run, tmp_path, command):
    image = sorted((run / "scenes" / "val").rglob("*.png"))[0]
    assert inspect(*command).startswith(f"loss of class '{image.parent.name}' (the folder's)\n")
    other = str((int(image.parent.name) + 1) % 10)
    assert inspect(*command, "--label", other).startswith(f"loss of class '{other}'\n")
    elsewhere = tmp_path / "photo.png"
    elsewhere.write_bytes(image.read_bytes())
    assert "(the predicted one; use the label to name another)\n" in inspect(*command, file=elsewhere)


def test_no_hint_names_a_flag_that_the_command_lacks(inspect, capsys, tmp_path):
    spoilt = tmp_path / "spoilt.png"
    spoilt.write_bytes(b"no image")
    with pytest.raises(SystemExit):
        inspect("arrows", file=spoilt)
    told = capsys.readouterr().err
    assert "cannot read image" in told
    assert "--" not in told


def test_a_folder_is_no_image(inspect, capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        inspect("arrows", file=tmp_path)
    assert stop.value.code == 1
    assert "is a folder; name one image file" in capsys.readouterr().err


def test_windows_are_parsed_and_checked():
    assert parse_windows(["2=0.3,-0.5,0.1", "1=1,0,0"], 4) == {2: (0.3, -0.5, 0.1), 1: (1.0, 0.0, 0.0)}
    assert parse_windows(["2=0.3,2,0"], 4, allow_outside=True) == {2: (0.3, 2.0, 0.0)}
    for bad in ("2=0,0,0", "2=nan,0,0", "2=0.1,inf,0"):
        with pytest.raises(SettingError, match="scale above 0 and finite"):
            parse_windows([bad], 4)
    with pytest.raises(SettingError, match="glimpse 2 is already set"):
        parse_windows(["2=0.3,0,0", "2=0.4,0,0"], 4)


def test_tools_over_many_images_and_runs(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder, scenes = str(run / "run"), str(run / "scenes" / "val")
    main(["inspect", "scanpath", folder, scenes, "--device", "cpu"])
    main(["inspect", "statistics", folder, folder + "/."])
    main(["inspect", "dataset", folder, "--device", "cpu"])
    main(["inspect", "quality", folder, "--policy", "oracle", "--images", "2", "--points", "20", "--out", "oracle"])
    flags = ["--generators", "own", "linearized", "--images", "2", "--points", "20", "--device", "cpu"]
    main(["inspect", "quality", folder, *flags])
    told = capsys.readouterr().out
    assert f"{folder} (linearized)" in told
    names = ["scanpath.png", "statistics.png", "dataset/dataset.png", "dataset/examples.png", "quality/quality.png"]
    assert all((tmp_path / name).stat().st_size > 5000 for name in names)
    assert json.loads((tmp_path / "dataset/dataset.json").read_text())["num_images"] == 4
    assert set(json.loads((tmp_path / "quality/quality.json").read_text())) == {folder, f"{folder} (linearized)"}


@pytest.mark.parametrize(
    ("command", "told"),
    [("statistics", "has no localization.csv"), ("quality", "is no run folder"), ("dataset", "is no run folder")],
)
def test_a_folder_that_is_no_run_is_told(command, told, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["inspect", command, str(tmp_path)])
    assert stop.value.code == 1
    assert told in capsys.readouterr().err
