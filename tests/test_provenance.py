"""What a JSON of results says of its making; and that those of the repository say it."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch

from glimpsenet import provenance
from glimpsenet.config import to_dict
from glimpsenet.recipes import image_folder
from glimpsenet.training import series

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
REPORT = ROOT / "docs" / "reproduction" / "report.json"
MACHINE = {"device", "cpu", "instruction_set", "cores", "threads", "python", "torch", "timm", "glimpsenet", "commit"}
OLD = {
    "faults.json",
    "first-light-digits.json",
    "first-light-traffic-signs.json",
    "localization-digits-short.json",
    "robustness-traffic-signs-seed-0.json",
    "soak.json",
    "speed-early-exit.json",
    "speed-learning.json",
    "speed-pipeline.json",
    "speed-resnet18-bfloat16.json",
    "whole-image-traffic-signs.json",
}
"""Measured before results said all of it. This list only gets shorter: measure again, and remove the name."""


@pytest.fixture
def folders(tmp_path, monkeypatch) -> Path:
    """A working directory inside a home directory."""
    work = tmp_path / "home" / "work"
    work.mkdir(parents=True)
    monkeypatch.chdir(work)
    monkeypatch.setenv("HOME", str(work.parent))
    return work


def test_a_command_names_no_folder_of_the_machine(folders):
    home, elsewhere = folders.parent, folders.parent.parent / "disk"
    words = ["--out", f"{folders}/runs/x", f"--data={home}/my photos", f"{elsewhere}/weights.pt", "--set", "2=0.25,0,0"]
    told = provenance.typed_command([f"{elsewhere}/.venv/bin/glimpsenet", "inspect", *words, str(folders)])
    assert told == "glimpsenet inspect --out runs/x '--data=~/my photos' .../weights.pt --set 2=0.25,0,0 ."
    assert provenance.typed_command([f"{home}/x/glimpsenet/__main__.py"]) == "glimpsenet"
    assert provenance.typed_command([f"{home}/x/pytest/__main__.py", "-q"]) == "python -m pytest -q"
    assert provenance.typed_command([f"{folders}/benchmarks/soak.py"]) == "python benchmarks/soak.py"
    assert provenance.typed_command(["benchmarks/soak.py", f"{home}/a b/c"]) == "python benchmarks/soak.py ~/'a b/c'"


def test_provenance_is_command_machine_and_seeds(folders, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["benchmarks/x.py", "--out", f"{folders}/y"])
    told = provenance.provenance(torch.device("cpu"), iter([2, 0, 2]))
    assert list(told) == ["command", "machine", "seeds"]
    assert told["command"] == "python benchmarks/x.py --out y"
    assert told["seeds"] == [0, 2]
    assert told["machine"].keys() >= MACHINE


def test_machines_of_several_runs_are_told_where_they_differ():
    machines = [{"cpu": "a", "commit": "1"}, {"cpu": "a", "commit": "2"}, {"cpu": "a", "commit": "1"}]
    assert provenance.common_machine(machines) == {"cpu": "a", "commit": "1 / 2"}


def test_a_record_names_no_folder_of_the_machine(folders, monkeypatch):
    policies = {"evaluation": {"policies": {}}}
    monkeypatch.setattr(series, "fit", lambda config, out, **k: {"seed": config.seed})
    monkeypatch.setattr(series, "_read_curve", lambda folder: {})
    config = image_folder().with_data(folders.parent / "photos")
    names = {"photos": [config]}
    found = series.train_series(names, folders / "out", measure=lambda *_: policies["evaluation"], tell=lambda _: None)
    assert found["photos"][0]["config"]["data"]["data"] == "~/photos"
    assert str(folders.parent) not in json.dumps(found)
    assert series.read_record(folders / "out/records/photos-seed-0.json", config) is not None
    assert to_dict(config)["data"]["data"] != "~/photos"


@pytest.mark.parametrize("file", [*sorted(RESULTS.rglob("*.json")), REPORT], ids=lambda file: file.name)
def test_results_say_how_they_were_made(file):
    result = json.loads(file.read_text())
    record = file.parent.parent == RESULTS  # of one run of a series; the command is in the JSON of the series
    machine = (result["summary"] if record else result).get("machine", {})
    wanted = {"config", "summary", "evaluation", "curve"} if record else {"command", "seeds"}
    complete = result.keys() >= wanted and machine.keys() >= MACHINE and bool(machine["commit"])
    if not record and file.name in OLD:
        assert not complete, f"{file.name} says all of it now: take it off the list"
    else:
        assert complete, f"{file.name} lacks {wanted - result.keys()} {MACHINE - machine.keys()}"
    if record:
        assert (RESULTS / f"{file.parent.name}.json").exists() or file.parent.name == "reproduction-digits"
    assert not re.search(r"""["\s=']/(?!/)[\w.]""", result.get("command") or "")
    assert not re.search(r'"(/|~/|\.\./)(home|root|tmp|mnt|work|usr)/', json.dumps(result))


def test_the_list_of_old_results_names_files_that_exist():
    assert {file.name for file in [*RESULTS.glob("*.json"), REPORT]} >= OLD
