"""Repeating a command is safe: what a run folder holds, one process in it at a time, and how a run is replaced."""

import json
import multiprocessing
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from glimpsenet import runs
from glimpsenet.cli import main
from glimpsenet.config import Config
from glimpsenet.data.config import DigitsConfig
from glimpsenet.errors import SettingError, UserError
from glimpsenet.models.config import ModelConfig
from glimpsenet.runs import Description, write_description
from glimpsenet.training import fit as fitting
from glimpsenet.training import run_folder
from glimpsenet.training.config import TrainingConfig
from glimpsenet.training.fit import fit
from glimpsenet.training.run_folder import alone_in, check_folder, finished_summary, replace_run

pytestmark = pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.*", "ignore:Checkpoint directory .* exists")

CONFIG = Config(
    model=ModelConfig(backbone="glimpse_cnn", num_glimpses=2, image_size=20, glimpse_size=8),
    data=DigitsConfig(train_scenes=8, val_scenes=6, test_scenes=6),
    training=TrainingConfig(max_steps=2, batch_size=4, optimizer="adamw", precision="float32", validations=1),
)
OTHER = replace(CONFIG, seed=3)
COMMAND = [
    *("train", "digits", "--train-scenes", "8", "--val-scenes", "6", "--test-scenes", "6", "--image-size", "20"),
    *(
        "--glimpse-size",
        "8",
        "--num-glimpses",
        "2",
        "--max-steps",
        "2",
        "--batch-size",
        "4",
        "--device",
        "cpu",
        "--out",
    ),
]


def train(out: Path, config: Config = CONFIG, **settings):
    return fit(config, out, device="cpu", **settings)


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, with its time of writing."""
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): (file.stat().st_mtime_ns, file.read_bytes()) for file in files}


def make_run(folder: Path, config: Config = CONFIG, *, finished: bool = True) -> Path:
    """What looks like a run, without training one."""
    (folder / "checkpoints").mkdir(parents=True)
    write_description(folder, Description(config, [str(digit) for digit in range(10)], 1))
    (folder / "checkpoints/last.ckpt").write_text(f"learned with seed {config.seed}")
    if finished:
        (folder / "model.safetensors").write_text("weights")
        summary = {"metrics": {}, "test_metrics": None, "steps": 2, "best_step": 2, "skipped_images": []}
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    train(out)
    return out


# ---- the same again ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resume", [False, True])
def test_a_finished_run_is_left_alone(run, monkeypatch, resume):
    before = content(run)
    monkeypatch.setattr(fitting, "open_data", lambda *_: pytest.fail("the data are not needed"))
    free = replace(CONFIG, training=replace(CONFIG.training, validations=2, workers=1))  # what is learned is the same
    for config in (CONFIG, free):
        assert train(run, config, resume=resume) == json.loads((run / "summary.json").read_text())
    assert content(run) == before


def test_the_command_says_so_and_prints_the_same_table(tmp_path, capfd):
    out = tmp_path / "run"
    main([*COMMAND, str(out)])
    first, before = capfd.readouterr().out, content(out)
    main([*COMMAND, str(out)])
    line, *again = capfd.readouterr().out.splitlines()
    assert "".join(line.split()) == f"{out} already holds this run, complete: nothing was trained".replace(" ", "")
    assert again == first.splitlines()
    assert content(out) == before


def test_a_summary_that_is_damaged_or_of_an_older_version_is_written_anew(run, tmp_path):
    whole = json.loads((run / "summary.json").read_text())
    for text in ("{", "[]", json.dumps({name: whole[name] for name in whole if name != "test_metrics"})):
        copy = shutil.copytree(run, tmp_path / "copy", dirs_exist_ok=True)
        (copy / "summary.json").write_text(text)
        assert finished_summary(CONFIG, copy) is None
    assert train(copy, resume=True)["test_metrics"] == whole["test_metrics"]
    assert finished_summary(CONFIG, copy) is not None


# ---- what is refused -----------------------------------------------------------------------------------------------


def test_other_settings_are_refused_and_nothing_is_touched(tmp_path):
    folder = make_run(tmp_path / "run")
    before = content(folder)
    with pytest.raises(UserError, match=r"holds a run with another seed \(it was 0, now 3\); .* or overwrite it"):
        train(folder, OTHER)
    assert content(folder) == before


def test_files_of_no_run_are_never_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("all of it")
    (tmp_path / ".film.7.part").write_text("a download")
    before = content(tmp_path)
    for settings in ({}, {"overwrite": True}):
        with pytest.raises(UserError, match="holds files, but no run; choose another folder"):
            train(tmp_path, **settings)
        assert content(tmp_path) == before


def test_resume_and_overwrite_are_two_things(tmp_path):
    with pytest.raises(SettingError, match="choose one of them"):
        train(tmp_path / "run", resume=True, overwrite=True)
    assert not (tmp_path / "run").exists()


# ---- replaced ------------------------------------------------------------------------------------------------------


def test_a_run_is_replaced_once_all_else_is_checked_and_other_files_stay(tmp_path, monkeypatch):
    folder = make_run(tmp_path / "run")
    (folder / "notes.txt").write_text("mine")
    before = content(folder)
    unusable = replace(OTHER, model=replace(OTHER.model, backbone="resnet19"))
    with pytest.raises(UserError, match="resnet19"):
        train(folder, unusable, overwrite=True)
    with monkeypatch.context() as patch:
        patch.setattr(fitting.pl, "Trainer", lambda **_: pytest.fail("no such devices"))
        with pytest.raises(pytest.fail.Exception, match="no such devices"):
            train(folder, OTHER, overwrite=True)
    assert content(folder) == before

    train(folder, OTHER, overwrite=True)
    assert runs.read_description(folder).config.seed == 3
    assert finished_summary(OTHER, folder) is not None
    assert (folder / "notes.txt").read_text() == "mine"
    assert not [file for file in folder.rglob("*") if file.name.startswith(".")]
    assert runs.load_run(folder)


def test_a_replacement_killed_at_any_moment_leaves_one_whole_run(tmp_path, monkeypatch):
    """Killed before each rename and removal in turn: old or new, never a mixture."""
    new = Description(OTHER, [str(digit) for digit in range(10)], 1)
    seeds = []
    for moment in range(1, 100):
        folder = make_run(tmp_path / f"run-{moment}")
        (folder / "metrics.csv").write_text("old")
        calls = 0

        def die_at(call, moment=moment):
            def wrapped(*arguments, **settings):
                nonlocal calls
                calls += 1
                if calls == moment:
                    raise KeyboardInterrupt  # no handler of errors sees it: as good as a kill
                return call(*arguments, **settings)

            return wrapped

        with monkeypatch.context() as patch:
            for owner, name in ((Path, "rename"), (os, "replace"), (os, "unlink"), (os, "rmdir"), (Path, "mkdir")):
                patch.setattr(owner, name, die_at(getattr(owner, name)))
            try:
                replace_run(folder, new)
            except KeyboardInterrupt:
                pass
            else:
                break
        begun = (folder / "config.json").exists() and runs.read_description(folder).config == OTHER
        check_folder(OTHER if begun else CONFIG, folder, resume=True)
        seeds.append(runs.read_description(folder).config.seed)
        learned = {"checkpoints", "model.safetensors", "summary.json", "metrics.csv"}
        left = {file.name for file in folder.iterdir()}
        assert left == {"config.json"} | (learned if seeds[-1] == 0 else set()), moment
    assert seeds == sorted(seeds)
    assert set(seeds) == {0, 3}


# ---- two at once ---------------------------------------------------------------------------------------------------


def hold(folder: Path, ready, end) -> None:
    with alone_in(folder):
        ready.set()
        end.wait(60)


def test_another_process_is_refused_until_the_first_is_gone_even_killed(tmp_path):
    folder = make_run(tmp_path / "run", finished=False)
    before = content(folder)
    fork = multiprocessing.get_context("fork")
    ready, end = fork.Event(), fork.Event()
    first = fork.Process(target=hold, args=(folder, ready, end))
    first.start()
    assert ready.wait(60)
    for settings in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(UserError, match=r"another process is training in .*run; wait for it, or choose another"):
            train(folder, **settings)
    os.kill(first.pid, signal.SIGKILL)
    first.join(60)
    with alone_in(folder):
        pass
    assert content(folder) == before


def test_a_refused_command_leaves_no_folder(tmp_path):
    with pytest.raises(UserError, match="resnet19"):
        train(tmp_path / "run", replace(CONFIG, model=replace(CONFIG.model, backbone="resnet19")))
    assert not (tmp_path / "run").exists()


# ---- make demo -----------------------------------------------------------------------------------------------------


def test_scenes_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    """The Makefile makes those of the demo unless their folder exists."""
    from glimpsenet.data import digits

    command = ["data", "digits", str(tmp_path / "run/scenes"), "--train-scenes", "1", "--val-scenes", "2"]
    with monkeypatch.context() as patch:
        patch.setattr(digits, "_to_bytes", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(SystemExit):
            main(command)
    assert not list((tmp_path / "run").iterdir())
    main(command)
    assert (tmp_path / "run/scenes/boxes.csv").exists()


def test_what_a_kill_left_beside_is_removed_with_the_run_that_goes_on(tmp_path):
    folder = make_run(tmp_path / "run", finished=False)
    (folder / ".scenes.7.part/val").mkdir(parents=True)
    (folder / "checkpoints/.last.ckpt.7.part").touch()
    check_folder(CONFIG, folder, resume=True)
    assert not [file for file in folder.rglob("*") if file.name.startswith(".")]
    assert run_folder.LOCK not in os.listdir(folder)
