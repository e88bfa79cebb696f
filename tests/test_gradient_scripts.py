"""The scripts that docs/inspection.md is made of: what they compute, and what they refuse."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from glimpsenet.config import Config, to_dict
from glimpsenet.data.config import DigitsConfig
from glimpsenet.data.sample import Sample
from glimpsenet.errors import UserError
from glimpsenet.geometry import lies_inside
from glimpsenet.models.build import build_model
from glimpsenet.models.config import ModelConfig
from glimpsenet.policies.config import TokenConfig
from glimpsenet.runs import Description, load_run, save_weights, write_description
from glimpsenet.training.run_folder import flat

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))
import gradient_quality  # noqa: E402
import gradient_spectrum  # noqa: E402
import inspection_figures  # noqa: E402
import photo_gradients  # noqa: E402


def untrained(folder: Path, seed: int) -> Path:
    """A small run that reads nothing."""
    settings = {"image_size": 40, "glimpse_size": 10, "num_glimpses": 2, "policy": TokenConfig()}
    config = Config(model=ModelConfig(backbone="glimpse_cnn", **settings), data=DigitsConfig(test_scenes=4), seed=seed)
    torch.manual_seed(seed)
    folder.mkdir()
    write_description(folder, Description(config, [str(digit) for digit in range(10)], 1))
    save_weights(build_model(config.model, num_classes=10, in_channels=1), folder)
    return folder


def test_a_model_that_does_not_read_its_windows_is_refused_with_both_accuracies(tmp_path):
    run = untrained(tmp_path / "run", 0)
    with pytest.raises(UserError, match=r"run hardly reads its windows: 0\.\d{3} with true ones, 0\.\d{3} without any"):
        gradient_quality.open_reader(run)


def test_models_are_measured_on_scenes_of_their_own_and_pooled(tmp_path, monkeypatch):
    monkeypatch.setattr(gradient_quality, "LEAST_GAIN", -1.0)
    generators = {name: gradient_quality.GENERATORS[name] for name in ("mipmap", "linearized")}
    monkeypatch.setattr(gradient_quality, "GENERATORS", generators)
    monkeypatch.chdir(tmp_path)
    runs = [untrained(tmp_path / f"seed-{seed}", seed) for seed in (3, 4)]
    files = ["--out", "out/quality.json", "--figure", "out/quality.png"]
    gradient_quality.main([*map(str, runs), "--scenes", "2", "--points", "20", *files])
    result = json.loads(Path("out/quality.json").read_text())
    assert result["seeds"] == [3, 4]
    assert [model["run"] for model in result["models"]] == ["seed-3", "seed-4"]
    assert [model["scenes"] for model in result["models"]] == [[0, 2], [2, 4]]
    assert {model["split"] for model in result["models"]} == {"test"}
    for around in ("random", "true"):
        assert list(result["quality"][around]) == ["mipmap", "linearized"]
        for quality in result["quality"][around].values():
            each = [model["tx"]["wanted_sign"]["value"] for model in quality["models"]]
            assert quality["pooled"]["tx"]["num_sweeps"] == 4
            assert quality["pooled"]["tx"]["wanted_sign"]["value"] == pytest.approx(sum(each) / 2)
    assert Path("out/quality.png").stat().st_size > 1000
    with pytest.raises(UserError, match="seed-4 has 4 test images; 6 are needed: take fewer scenes"):
        gradient_quality.main([*map(str, runs), "--scenes", "3", "--points", "20", *files])


def test_the_fine_share_of_waves_is_known():
    pixels = np.arange(gradient_spectrum.POINTS) / gradient_spectrum.PER_PIXEL
    fine, coarse = np.sin(2 * np.pi * pixels / 1.0), np.sin(2 * np.pi * pixels / 8.0)
    assert gradient_spectrum.fine_share(fine + 3) == pytest.approx(1, abs=1e-6)
    assert gradient_spectrum.fine_share(coarse) == pytest.approx(0, abs=1e-3)
    assert gradient_spectrum.fine_share(fine + coarse) == pytest.approx(0.5, abs=1e-3)
    assert gradient_spectrum.fine_share(np.ones(256)) == 0


@pytest.mark.parametrize("box", [(32.0, 30, 48, 46), (0.0, 64, 16, 80)])
@pytest.mark.parametrize("scale", gradient_spectrum.SCALES)
def test_windows_slide_over_the_digit_and_stay_inside(box, scale):
    windows = gradient_spectrum.slide(torch.tensor(box), scale, 80)
    assert bool(lies_inside(windows).all())
    assert (windows[:, 1].diff() * 40).numpy() == pytest.approx(1 / 16, abs=1e-4)
    assert len(windows[:, 2].unique()) == 1
    if box[0] == 32:
        assert windows[:, 1].mean() == pytest.approx(0, abs=1e-6)


def test_a_basin_by_hand():
    places = np.linspace(-1, 1, 201)
    width, cut = photo_gradients.basin(np.abs(places), 200.0)
    assert (width, cut) == (pytest.approx(95, abs=3), False)  # half of 190, what is left where averages lie inside
    width, cut = photo_gradients.basin(places, 200.0)
    assert (width, cut) == (pytest.approx(90, abs=3), True)


def test_the_scene_of_the_pictures_is_wrong_by_itself_and_right_with_true_windows(tmp_path, monkeypatch):
    run = load_run(untrained(tmp_path / "run", 0))

    def answers(own: list[int], true: list[int]) -> None:
        def forward(images, policy=None):
            chosen = torch.tensor(true if policy is not None else own)[: len(images)]
            logits = torch.nn.functional.one_hot((labels + 1 - chosen) % 10, 10)
            return type("Output", (), {"logits": logits[:, None]})

        monkeypatch.setattr(run.model, "forward", forward)

    dataset = inspection_figures.open_data(run.config, run.classes, run.channels).held_out()[1]
    labels = torch.tensor([dataset[0, place].label for place in range(4)])
    answers([1, 0, 0, 1], [1, 0, 1, 1])
    found: Sample = inspection_figures.hard_scene(run)
    assert found.place == 2
    answers([1, 1, 1, 1], [0, 0, 0, 0])
    with pytest.raises(UserError, match="gets no held-out image wrong that it gets right with true windows"):
        inspection_figures.hard_scene(run)


def test_what_is_compared_differs_in_one_setting():
    for compared, configs in inspection_figures.experiments().items():
        first, second = (dict(flat(to_dict(config))) for config in configs.values())
        (name,) = [name for name in first if first[name] != second[name]]
        assert name.endswith(compared)
        assert [float(value) for value in configs] == [first[name], second[name]]
