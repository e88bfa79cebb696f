"""Predicting files, with early exit: what is told is what was looked at."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

from glimpsenet.cli import main
from glimpsenet.config import Config
from glimpsenet.data.config import FolderConfig, NoAugmentation
from glimpsenet.data.transforms import FitSquare
from glimpsenet.inference import ExitRule, Predictor, accelerate, predict
from glimpsenet.models.build import build_model
from glimpsenet.models.config import ModelConfig
from glimpsenet.runs import Description, load_run, save_weights, write_description


@pytest.fixture
def run(tmp_path) -> Path:
    torch.manual_seed(0)
    model = ModelConfig(backbone="glimpse_cnn", image_size=32, glimpse_size=8, num_glimpses=3)
    description = Description(Config(model=model, data=FolderConfig(augmentation=NoAugmentation())), ["a", "b", "c"], 3)
    network = build_model(model, num_classes=3, in_channels=3)
    torch.nn.init.normal_(network.classifier.weight)
    folder = tmp_path / "run"
    folder.mkdir()
    write_description(folder, description)
    save_weights(network, folder)
    return folder


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    for place in range(9):
        coarse = Image.fromarray(random.integers(256, size=(4, 5, 3), dtype=np.uint8))
        coarse.resize((50, 40)).save(folder / f"{place}.png")
    return folder


def told(capfd, *arguments) -> str:
    capfd.readouterr()
    main([str(argument) for argument in arguments])
    return capfd.readouterr().out


def test_images_stop_where_their_answer_is_sure(run, photos):
    loaded, files = load_run(run), sorted(photos.iterdir())
    full = list(predict(loaded, files))
    assert [len(prediction.windows) for prediction in full] == [3] * 9
    threshold = float(torch.stack([prediction.probabilities[0].max() for prediction in full]).median())
    for early, whole in zip(predict(loaded, files, rule=ExitRule(threshold), batch_size=4), full, strict=True):
        looks = len(early.windows)
        assert looks == next((t for t in (1, 2) if whole.probabilities[t - 1].max() > threshold), 3)
        for name in ("windows", "probabilities", "boxes", "crops"):
            torch.testing.assert_close(getattr(early, name), getattr(whole, name)[:looks], atol=1e-3, rtol=1e-4)


def test_one_file_and_an_image_in_memory_are_told_the_same(run, photos):
    loaded, file = load_run(run), photos / "3.png"
    (seen,) = predict(loaded, str(file))
    (again,) = predict(loaded, [file])
    assert seen.file == again.file == file
    torch.testing.assert_close(seen.probabilities, again.probabilities)
    # As docs/own-images.md says.
    square = FitSquare(loaded.config.model.image_size)(pil_to_tensor(Image.open(file).convert("RGB")))
    output = Predictor(accelerate(loaded.model))(square[None])
    torch.testing.assert_close(output.logits[0].softmax(-1), seen.probabilities[-1], atol=1e-5, rtol=1e-4)


def test_the_command_tells_only_what_was_looked_at(run, photos, capfd, tmp_path):
    once = json.loads(told(capfd, "predict", run, photos, "--json", "--exit-confidence", "0"))["predictions"]
    assert [len(row["glimpses"]) for row in once] == [1] * 9
    full = json.loads(told(capfd, "predict", run, photos, "--json"))["predictions"]
    assert [row["class"] for row in once] == [row["glimpses"][0]["class"] for row in full]
    confidence = float(np.median([row["glimpses"][0]["probability"] for row in full]))
    command = ["predict", run, photos, "--exit-confidence", confidence]
    rows = list(csv.DictReader(io.StringIO(told(capfd, *command, "--csv"))))
    assert {bool(row["x0_2"]) for row in rows} == {True, False}
    assert all(row["x0_1"] and row["class"] for row in rows)
    assert "glimpses" in told(capfd, *command, "--figure", tmp_path / "looks.png")


def test_a_confidence_that_cannot_be_is_told(run, photos, capfd):
    with pytest.raises(SystemExit) as caught:
        told(capfd, "predict", run, photos, "--exit-confidence", "1.5")
    assert caught.value.code == 2
    assert "0 to 1; got 1.5" in capfd.readouterr().err
