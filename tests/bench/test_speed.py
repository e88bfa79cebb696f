"""The measurements of ``bench``, through the command line, on tiny models."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from glimpsenet.bench.early_exit import plot_early_exit
from glimpsenet.bench.subjects import build_subject, glimpsing, open_subject, plain
from glimpsenet.bench.training import reference_of, training_step
from glimpsenet.cli import main
from glimpsenet.config import Config, DigitsConfig, ModelConfig
from glimpsenet.errors import UserError
from glimpsenet.models.build import build_model
from glimpsenet.runs import Description, save_weights, write_description

CPU = torch.device("cpu")
TINY = {"backbone": "glimpse_cnn", "image_size": 32, "glimpse_size": 8, "num_glimpses": 3}


@pytest.fixture(autouse=True)
def small_machine(monkeypatch):
    """A roofline in no time, and as few calls as there can be."""
    monkeypatch.setattr("glimpsenet.bench.roofline.SIDE", {"cpu": 16})
    monkeypatch.setattr("glimpsenet.bench.roofline.BYTES", 2**12)
    monkeypatch.setattr("glimpsenet.bench.timing.LEAST_SECONDS", 0.0)


def make_run(folder: Path, **settings) -> Path:
    torch.manual_seed(0)
    config = Config(model=ModelConfig(**{**TINY, **settings}), data=DigitsConfig(val_scenes=8))
    description = Description(config, [str(digit) for digit in range(10)], 1)
    model = build_model(config.model, num_classes=10, in_channels=1)
    torch.nn.init.normal_(model.classifier.weight)
    folder.mkdir()
    write_description(folder, description)
    save_weights(model, folder)
    return folder


def glimpsenet(*arguments) -> None:
    main([str(argument) for argument in arguments])


def test_speed_of_a_backbone(tmp_path, capfd):
    out = tmp_path / "new" / "speed.json"
    sizes = ["--image-size", 32, "--glimpse-size", 8, "--num-glimpses", 2]
    settings = ["--modes", "eager", "fast", "--batch-sizes", 1, 3, "--training", 2, "--repetitions", 2]
    glimpsenet("bench", "speed", "glimpse_cnn", *sizes, *settings, "--device", "cpu", "--out", out)
    result = json.loads(out.read_text())
    assert {"command", "machine", "seeds", "precision", "cost", "roofline", "inference", "training"} == result.keys()
    assert result["seeds"] == [0]
    assert result["machine"]["threads"] == torch.get_num_threads()
    rows = [(row["what"], row["mode"], row["batch"]) for row in result["inference"]]
    kinds = [("plain", "eager"), ("glimpses", "eager"), ("plain", "fast"), ("glimpses", "fast")]
    assert rows == [(*kind, batch) for batch in (1, 3) for kind in kinds]
    assert [row["mode"] for row in result["training"]] == ["reference", "eager", "fast"]
    for row in result["inference"] + result["training"]:
        assert row["repetitions"] == 2
        assert row["ms_quartiles"][0] <= row["ms"] <= row["ms_quartiles"][1]
        assert min(row["ratio"], row["share_of_roofline"], row["peak_mb"]) > 0
        assert row["ratio"] == 1 or (row["what"], row["mode"]) not in {("plain", "eager"), ("training", "reference")}
    output = capfd.readouterr().out
    assert "x reference" in output
    assert f"wrote {out}" in output


def test_a_run_is_measured_as_it_is(tmp_path):
    run = make_run(tmp_path / "run", localization="tokens", sampling="mipmap")
    subject = open_subject(str(run), CPU)
    assert (subject.model.num_classes, subject.channels, subject.images(2).shape) == (10, 1, (2, 1, 32, 32))
    with pytest.raises(UserError, match="is a run, which has its own image_size"):
        open_subject(str(run), CPU, image_size=64, glimpse_size=None)
    with pytest.raises(UserError, match="unknown backbone 'resnet81'"):
        open_subject("resnet81", CPU)
    assert open_subject("glimpse_cnn", CPU, image_size=None).config.model.image_size == 224


def test_every_mode_is_the_same_function(tmp_path):
    subject = open_subject(str(make_run(tmp_path / "run")), CPU)
    images = subject.images(3)
    with torch.inference_mode():
        for make in (plain, glimpsing):
            torch.manual_seed(0)
            eager = make(subject, "eager")(images)
            torch.manual_seed(0)
            torch.testing.assert_close(make(subject, "fast")(images), eager, atol=1e-4, rtol=1e-4)
            assert eager.shape == (3, 10)


def test_training_steps_learn_alike(margins):
    experiment = margins.EXPERIMENTS["modes"]
    experiment.check(experiment.measure(0))


def test_the_reference_is_mgnet_and_the_model_stays_as_it_is():
    config = Config(model=ModelConfig(**TINY, sampling="mipmap", batch_norm="separate"))
    subject = build_subject(config, 1, CPU)
    reference = reference_of(subject).config.model
    assert (reference.sampling, reference.batch_norm, reference.glimpse_size) == ("bilinear", "shared", 8)
    before = [value.clone() for value in subject.model.parameters()]
    training_step(subject, "eager", torch.float32)(subject.images(4), torch.arange(4), torch.rand(4, 4))
    assert all(torch.equal(value, old) for value, old in zip(subject.model.parameters(), before, strict=True))


def test_cost_grows_as_it_should(tmp_path):
    out = tmp_path / "scaling.json"
    run = make_run(tmp_path / "run")
    cases = ["--glimpses", 1, 2, 4, "--image-sizes", 32, 64, 128, "--batch-sizes", 4, 16, 64]
    glimpsenet("bench", "scaling", run, *cases, "--repetitions", 1, "--device", "cpu", "--out", out)
    rows = json.loads(out.read_text())["rows"]

    def values(varied: str, name: str) -> list[float]:
        return [row[name] for row in rows if row["varied"] == varied]

    first, second, fourth = values("glimpses", "operations")
    assert second - first == pytest.approx((fourth - second) / 2, rel=0.01)
    assert len(set(values("image size", "operations"))) == 1
    # Beside the image: the same for any size of it. Normalising takes an image's size twice for a moment.
    beside = [
        peak - 2 * image
        for peak, image in zip(values("image size", "peak_mb"), values("image size", "image_mb"), strict=True)
    ]
    assert max(beside) < 0.35
    # Far apart: small batches may take another way through a convolution, with a work space of its own.
    few, more, most = values("batch", "peak_mb")
    assert most - more == pytest.approx(4 * (more - few), rel=0.2)
    assert values("batch", "operations")[2] == 16 * values("batch", "operations")[0]


def test_early_exit_is_measured_on_images_it_was_not_calibrated_on(tmp_path, capfd):
    run, half, whole = (make_run(tmp_path / name) for name in ("run", "half", "whole"))
    half, whole = (make_run(tmp_path / f"{size} px", num_glimpses=1, glimpse_size=size) for size in (16, 32))
    out = tmp_path / "exit.json"
    settings = ["--scenes", 30, "--blocks", 3, "--batch-sizes", 1, 8, "--within", 0.05, "--device", "cpu"]
    glimpsenet("bench", "early-exit", run, "--plain", half, whole, *settings, "--out", out)
    result = json.loads(out.read_text())
    assert result["images"] == 30
    candidates = {row["candidate"]: row for row in result["candidates"]}
    full, calibrated = candidates["all looks"], candidates["calibrated"]
    assert full["mean_looks"] == 3
    assert full["exits"] == [0, 0, 1]
    assert [time["ratio"] for time in full["times"]] == [1, 1]
    assert calibrated["mean_looks"] <= 3
    assert calibrated["threshold"] == result["calibration"]["threshold"]
    for row in candidates.values():
        assert [time["batch"] for time in row["times"]] == [1, 8]
        assert sum(row["exits"]) == pytest.approx(1)
        assert sum(share * look for look, share in enumerate(row["exits"], 1)) == pytest.approx(row["mean_looks"])
    assert {"plain glimpse_cnn, 16 px", "plain glimpse_cnn, 32 px"} <= candidates.keys()
    assert out.with_suffix(".png").stat().st_size > 1000
    assert "calibrated" in capfd.readouterr().out


def test_the_legend_of_early_exit_names_what_is_drawn():
    def candidate(name: str) -> dict[str, Any]:
        return {"candidate": name, "accuracy": 0.9, "operations": 1e6, "times": [{"batch": 1, "ms": 2.0}]}

    def legend(*names: str) -> set[str]:
        figure = plot_early_exit({"candidates": [candidate(name) for name in names]})
        return {text.get_text() for text in figure.legends[0].get_texts()}

    drawn = {"glimpses, early exit", "all looks", "calibrated"}
    assert legend("all looks", "calibrated", "1.45 looks") == drawn
    assert legend("all looks", "calibrated", "plain glimpse_cnn, 20 px") == drawn | {"plain backbone"}


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["speed", "glimpse_cnn", "--batch-sizes", "0"], 2, "--batch-sizes must be 1 or more, got 0"),
        (["speed", "glimpse_cnn", "--repetitions", "0"], 2, "--repetitions must be 1 or more"),
        (["speed", "glimpse_cnn", "--glimpse-size", "300"], 2, "image_size 224 is smaller than glimpse_size 300"),
        (["scaling", "glimpse_cnn", "--glimpses", "-1"], 2, "--glimpses must be 1 or more"),
        (["early-exit", "RUN", "--within", "2"], 2, "--within is a share"),
        (["early-exit", "RUN", "--plain", "RUN"], 1, "is no plain backbone: it takes 3 glimpses"),
        (["early-exit", "nowhere"], 1, "no such run folder: nowhere"),
    ],
)
def test_wrong_usage_is_told_in_one_line(tmp_path, capfd, monkeypatch, arguments, code, told):
    make_run(tmp_path / "RUN")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        glimpsenet("bench", *arguments, "--device", "cpu", *(["--scenes", "4"] if "early" in arguments[0] else []))
    error = capfd.readouterr().err
    assert caught.value.code == code
    assert told in error
    assert error.count("glimpsenet: error: ") == 1
