"""The command, from runs to table, JSON and picture; and checks for masked gradients that can fail."""

import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from glimpsenet.cli import main
from glimpsenet.config import Config
from glimpsenet.data.config import DigitsConfig
from glimpsenet.errors import DataWarning, UserError
from glimpsenet.models.build import build_model
from glimpsenet.models.config import ModelConfig, NoClueConfig, NoFusionConfig
from glimpsenet.policies.config import TokenConfig
from glimpsenet.robustness.bench import Subject, _check_masking, bench_robustness
from glimpsenet.robustness.config import ATTACKS, Protocol
from glimpsenet.robustness.tables import robustness_lines, robustness_tables
from glimpsenet.runs import Description, load_run, save_weights, write_description
from glimpsenet.tables import print_table

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def make_run(folder: Path, **settings) -> Path:
    folder.mkdir()
    torch.manual_seed(1)
    model = ModelConfig(
        **{"backbone": "glimpse_cnn", "image_size": 32, "glimpse_size": 8, "num_glimpses": 2} | settings
    )
    write_description(folder, Description(Config(model=model, data=DigitsConfig()), [str(n) for n in range(10)], 1))
    save_weights(build_model(model, num_classes=10, in_channels=1), folder)
    return folder


@pytest.fixture
def runs(tmp_path) -> tuple[Path, Path]:
    whole = {"num_glimpses": 1, "glimpse_size": 32, "fusion": NoFusionConfig(), "clue": NoClueConfig()}
    return make_run(tmp_path / "looks", policy=TokenConfig()), make_run(tmp_path / "plain", **whole)


def test_the_command_leaves_table_json_and_picture(runs, tmp_path, capsys):
    looks, plain = map(str, runs)
    small = [
        "--images",
        "12",
        "--steps",
        "2",
        "--restarts",
        "1",
        "--queries",
        "5",
        "--targets",
        "1",
        "--severities",
        "3",
    ]
    chosen = ["--attacks", "mgnet", "pgd", "score", "square", "unbounded", "--corruptions", "fog", "contrast"]
    out = tmp_path / "robustness.json"
    main(["bench", "robustness", looks, "--plain", plain, *small, *chosen, "--device", "cpu", "--out", str(out)])
    table = capsys.readouterr().out
    result = json.loads(out.read_text())
    with Image.open(out.with_suffix(".png")) as picture:
        picture.load()
    assert result["images"] == 12
    assert result["eps"] == pytest.approx(4 / 255)
    one, other = result["models"]
    assert [len(one["clean"]), len(other["clean"])] == [2, 1]
    assert {(entry["attack"], entry["glimpses"]) for entry in one["attacks"]} == {
        ("mgnet", 1), ("mgnet", 2), ("pgd", 1), ("pgd", 2), ("score", 2), ("square", 2), ("unbounded", 2)
    }  # fmt: skip
    assert "score" not in {entry["attack"] for entry in other["attacks"]}
    for model in (one, other):
        clean = model["clean"][-1]["accuracy"]
        for entry in model["attacks"]:
            low, high = entry["interval"]
            assert 0 <= low <= entry["accuracy"] <= high <= 1
            assert entry["accuracy"] <= clean
        assert model["worst_case"]["accuracy"] <= min(
            entry["accuracy"] for entry in model["attacks"] if entry["attack"] in ("pgd", "square")
            and entry["glimpses"] == model["glimpses"]
        )  # fmt: skip
        assert [entry["corruption"] for entry in model["corruptions"]] == ["fog", "contrast"]
        mean = sum(entry["accuracy"][-1] for entry in model["corruptions"]) / 2
        assert model["mean_under_corruptions"][-1] == pytest.approx(mean)
    assert {"clean", "pgd", "corruptions"} <= result["differences"][0].keys()
    assert {check["check"].split()[0] for check in result["masking"]} == {"black", "transfer", "without"}
    assert "worst of all" in table
    for shown in robustness_tables(result):
        print_table(*shown)
    for line in robustness_lines(result):
        print(line)
    assert capsys.readouterr().out in table


def test_a_ready_folder_of_corrupted_images_works_too(runs, tmp_path):
    for severity in (1, 2):
        for name in "37":
            folder = tmp_path / "c/fog" / str(severity) / name
            folder.mkdir(parents=True)
            for place in range(3):
                Image.new("L", (40, 40), 60 * place).save(folder / f"{place}.png")
        (tmp_path / "c/fog" / str(severity) / ".DS_Store").touch()
        (tmp_path / "c/fog" / str(severity) / "3/._0.png").touch()
    protocol = Protocol(images=6, attacks=(), corruptions=("fog",), severities=(1, 2))
    with pytest.warns(DataWarning) as caught:
        result = bench_robustness(load_run(runs[0]), protocol=protocol, imagenet_c=tmp_path / "c")
    assert [str(each.message) for each in caught] == [
        f"left out 4 hidden or junk entries (.DS_Store 2, ._* 2) in {tmp_path / 'c/fog/1'} and 3 other folders"
    ]
    assert len(result["models"][0]["corruptions"]) == 2
    assert result["models"][0]["worst_case"] is None


def test_masked_gradients_are_found_out():
    """A white-box attack that found nothing, where others did."""

    def subject(name: str, **right: list[int]) -> Subject:
        model = build_model(ModelConfig(backbone="glimpse_cnn", num_glimpses=1), num_classes=2)
        return Subject(name, model, {(attack, 1): torch.tensor(values).bool() for attack, values in right.items()})

    masked = subject("masked", pgd=[1, 1, 1, 1], square=[1, 0, 1, 1], unbounded=[1, 0, 0, 0])
    sound = subject("sound", pgd=[0, 0, 1, 0], square=[1, 0, 1, 1], unbounded=[0, 0, 0, 0])
    transferred = [(sound, masked, torch.tensor([True, False, False, True])), (masked, sound, torch.ones(4).bool())]
    verdicts = {
        (check["model"], check["check"].split()[0]): check["passed"]
        for check in _check_masking([masked, sound], transferred)
    }
    assert verdicts == {
        ("masked", "black"): False, ("masked", "transfer"): False, ("masked", "without"): False,
        ("sound", "black"): True, ("sound", "transfer"): True, ("sound", "without"): True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--eps", "0"], "eps must be above 0"),
        (["--corruptions", "rain"], "no corruption 'rain'"),
        (["--severities", "6"], "1 to 5"),
    ],
)
def test_what_cannot_be_tried_is_wrong_usage(runs, flags, told, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["bench", "robustness", str(runs[0]), *flags])
    assert caught.value.code == 2
    assert told in capsys.readouterr().err
    assert set(ATTACKS) >= {"pgd", "square"}


class BrokenLibrary:
    """A finder of a library that is installed and does not load, for lack of a system library."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "imagecorruptions":
            raise ImportError("libxcb.so.1: cannot open shared object file")


def test_libraries_that_are_wanted_are_missed_before_anything_is_attacked(runs, monkeypatch):
    run, told = load_run(runs[0]), []
    monkeypatch.delitem(sys.modules, "imagecorruptions", raising=False)
    monkeypatch.setattr(sys, "meta_path", [BrokenLibrary, *sys.meta_path])
    with pytest.raises(UserError, match=r"^corrupting images needs what this system lacks: libxcb\.so\.1: cannot open"):
        bench_robustness(run, protocol=Protocol(attacks=("mgnet",)), tell=told.append)
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    with pytest.raises(UserError, match=r"^AutoAttack needs pyautoattack: pip install 'glimpsenet\[robustness\]'$"):
        bench_robustness(run, protocol=Protocol(attacks=("mgnet", "square")), tell=told.append)
    assert not told
