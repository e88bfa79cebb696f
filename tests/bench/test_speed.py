"""The measurements of ``bench``, through the command line, on tiny models."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from glimpsenet.bench.config import SpeedSettings, SubjectSettings
from glimpsenet.bench.early_exit import open_held_out, plot_early_exit
from glimpsenet.bench.scaling import break_even
from glimpsenet.bench.speed import bench_speed
from glimpsenet.bench.subjects import build_subject, glimpsing, open_subject, plain
from glimpsenet.bench.timing import Timing
from glimpsenet.bench.training import reference_of, training_step
from glimpsenet.cli import main
from glimpsenet.config import Config
from glimpsenet.data.config import DigitsConfig, FolderConfig
from glimpsenet.data.digits import DigitScenes
from glimpsenet.errors import UserError
from glimpsenet.models.build import build_model
from glimpsenet.models.config import BilinearConfig, MipmapConfig, ModelConfig
from glimpsenet.policies.config import TokenConfig
from glimpsenet.runs import Description, Run, load_run, save_weights, write_description

CPU = torch.device("cpu")
TINY = {"backbone": "glimpse_cnn", "image_size": 32, "glimpse_size": 8, "num_glimpses": 3}


@pytest.fixture(autouse=True)
def small_machine(monkeypatch):
    """A roofline in no time, and as few calls as there can be."""
    monkeypatch.setattr("glimpsenet.bench.roofline.SIDE", {"cpu": 16})
    monkeypatch.setattr("glimpsenet.bench.roofline.CHANNELS", 4)
    monkeypatch.setattr("glimpsenet.bench.roofline.BYTES", 2**12)
    monkeypatch.setattr("glimpsenet.bench.timing.LEAST_SECONDS", 0.0)


def make_run(folder: Path, seed: int = 0, **settings) -> Path:
    torch.manual_seed(seed)
    config = Config(model=ModelConfig(**{**TINY, **settings}), data=DigitsConfig(val_scenes=8), seed=seed)
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
    parts = {"precision", "repetitions", "ratios", "cost", "roofline", "inference", "training"}
    assert {"command", "machine", "seeds"} | parts == result.keys()
    assert result["seeds"] == [0]
    assert result["machine"]["threads"] == torch.get_num_threads()
    assert result["machine"]["instruction_set"]
    assert (result["precision"], result["repetitions"]) == ("float32", 2)
    rows = [(row["what"], row["mode"], row["batch"]) for row in result["inference"]]
    kinds = [("plain", "eager"), ("glimpses", "eager"), ("plain", "fast"), ("glimpses", "fast")]
    assert rows == [(*kind, batch) for batch in (1, 3) for kind in kinds]
    assert [row["mode"] for row in result["training"]] == ["reference", "eager", "fast"]
    for row in result["inference"] + result["training"]:
        assert row["repetitions"] == 2
        assert row["ms_quartiles"][0] <= row["ms"] <= row["ms_quartiles"][1]
        assert min(row["share_of_roofline"], row["peak_mb"]) > 0
    # Glimpses are compared with the plain backbone of their own mode, in the JSON and in what is printed first.
    ms = {(row["what"], row["mode"], row["batch"]): row["ms"] for row in result["inference"]}
    assert [(row["mode"], row["batch"]) for row in result["ratios"]] == [
        (mode, batch) for batch in (1, 3) for mode in ("eager", "fast")
    ]
    for row in result["ratios"]:
        same = row["mode"], row["batch"]
        assert row["ratio"] == pytest.approx(ms["glimpses", *same] / ms["plain", *same])
        assert row["ratio_quartiles"] == sorted(row["ratio_quartiles"])
    assert result["training"][0]["ratio"] == 1
    output = capfd.readouterr().out
    assert output.index("x plain") < output.index("x reference")
    assert f"wrote {out}" in output


def test_a_run_is_measured_as_it_is(tmp_path):
    run = make_run(tmp_path / "run", policy=TokenConfig(), sampling=MipmapConfig())
    subject = open_subject(str(run), CPU)
    assert (subject.model.num_classes, subject.channels, subject.images(2).shape) == (10, 1, (2, 1, 32, 32))
    with pytest.raises(UserError, match="is a run with a fixed image_size"):
        open_subject(str(run), CPU, SubjectSettings(image_size=64))
    with pytest.raises(UserError, match="unknown backbone 'resnet81'"):
        open_subject("resnet81", CPU)
    assert open_subject("glimpse_cnn", CPU).config.model.image_size == 224


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
    config = Config(model=ModelConfig(**TINY, sampling=MipmapConfig(), batch_norm="separate"))
    subject = build_subject(config, 1, CPU)
    reference = reference_of(subject).config.model
    assert (reference.sampling, reference.batch_norm, reference.glimpse_size) == (BilinearConfig(), "shared", 8)
    before = [value.clone() for value in subject.model.parameters()]
    training_step(subject, "eager", torch.float32)(subject.images(4), torch.arange(4), torch.rand(4, 4))
    assert all(torch.equal(value, old) for value, old in zip(subject.model.parameters(), before, strict=True))


def test_both_are_timed_in_the_precision_asked_for(tmp_path, monkeypatch):
    """A plain backbone in float32 beside glimpses in bfloat16 is no comparison."""
    seen = {}

    def multiplies(what):
        def classify(images):
            seen[what] = (images.flatten(1) @ images.flatten(1).T).dtype

        return lambda subject, mode: classify

    monkeypatch.setattr("glimpsenet.bench.speed.plain", multiplies("plain"))
    monkeypatch.setattr("glimpsenet.bench.speed.glimpsing", multiplies("glimpses"))
    subject = open_subject(str(make_run(tmp_path / "run")), CPU)
    settings = SpeedSettings(batch_sizes=(2,), modes=("eager",), precision="bfloat16", repetitions=1)
    bench_speed(subject, settings)
    assert seen == {"plain": torch.bfloat16, "glimpses": torch.bfloat16}


def test_ratios_pair_the_repetitions():
    ratio = Timing([1.0, 2.0, 6.0]).ratio_to(Timing([2.0, 2.0, 3.0]))
    assert ratio == {"ratio": 1.0, "ratio_quartiles": [0.75, 1.5]}


def test_cost_grows_as_it_should(tmp_path, capfd):
    out = tmp_path / "scaling.json"
    run = make_run(tmp_path / "run")
    cases = ["--glimpses", 1, 2, 4, "--image-sizes", 32, 64, "--batch-sizes", 4, 16, 64]
    glimpsenet("bench", "scaling", run, *cases, "--repetitions", 1, "--device", "cpu", "--out", out)
    result = json.loads(out.read_text())
    assert (result["mode"], result["repetitions"]) == ("fast", 1)
    rows = result["rows"]

    def values(varied: str, name: str, batch: int) -> list[float]:
        return [row[name] for row in rows if (row["varied"], row["batch"]) == (varied, batch)]

    first, second, fourth = values("glimpses", "flops", 16)
    assert second - first == pytest.approx((fourth - second) / 2, rel=0.01)
    assert len(set(values("image size", "flops", 16))) == 1
    # Beside the image: the same for any size of it. Normalising takes an image's size twice for a moment.
    peaks, images = (values("image size", name, 4) for name in ("peak_mb", "image_mb"))
    assert max(peak - 2 * image for peak, image in zip(peaks, images, strict=True)) < 0.35
    # Far apart: small batches may take another way through a convolution, with a work space of its own.
    few, more, most = (values("image size", "peak_mb", batch)[0] for batch in (4, 16, 64))
    assert most - more == pytest.approx(4 * (more - few), rel=0.2)
    assert values("image size", "flops", 64)[0] == 16 * values("image size", "flops", 4)[0]
    # The plain backbone at full size beside it, in the same mode.
    small, large = (plain["flops"] for plain in values("image size", "plain", 4))
    assert large == pytest.approx(4 * small, rel=0.01)
    assert all(row["ratio"] == pytest.approx(row["ms"] / row["plain"]["ms"]) for row in rows)
    output = capfd.readouterr().out
    assert "x plain" in output
    assert output.count("batch ") >= len(result["break_even"]) == 3


def test_glimpses_pay_where_they_surely_do_and_at_every_larger_size():
    def row(batch: int, size: int, high: float) -> dict[str, Any]:
        return {"varied": "image size", "value": size, "batch": batch, "ratio_quartiles": [0.1, high]}

    rows = [row(1, 224, 0.9), row(1, 320, 1.0), row(1, 448, 0.99), row(1, 640, 0.5), row(8, 224, 0.9), row(8, 320, 0.8)]
    rows += [row(2, 224, 0.9), row(2, 320, 1.1), {"varied": "glimpses"}]
    assert break_even(rows) == [
        {"batch": 1, "image_size": 448},
        {"batch": 8, "image_size": 224},
        {"batch": 2, "image_size": None},
    ]


def test_early_exit_is_calibrated_on_val_and_measured_on_test_seed_by_seed(tmp_path, capfd):
    runs = [make_run(tmp_path / f"run-{seed}", seed) for seed in range(2)]
    plain = [
        make_run(tmp_path / f"{size} px, {seed}", seed, num_glimpses=1, glimpse_size=size)
        for size in (16, 32)
        for seed in range(2)
    ]
    out = tmp_path / "exit.json"
    settings = ["--scenes", 30, "--timed", 8, "--blocks", 3, "--batch-sizes", 1, 8, "--within", 0.05]
    glimpsenet("bench", "early-exit", *runs, "--plain", *plain, *settings, "--device", "cpu", "--out", out)
    result = json.loads(out.read_text())
    assert (result["images"], result["timed_images"], result["repetitions"]) == (30, 8, 3)
    assert (result["split"], result["seeds"]) == ("test", [0, 1])
    for entry in result["runs"]:
        candidates = {row["candidate"]: row for row in entry["candidates"]}
        full, calibrated = candidates["all glimpses"], candidates["calibrated"]
        assert full["mean_glimpses"] == 3
        assert full["exits"] == [0, 0, 1]
        assert [time["ratio"] for time in full["times"]] == [1, 1]
        assert calibrated["mean_glimpses"] <= 3
        assert calibrated["threshold"] == entry["calibration"]["threshold"]
        for row in candidates.values():
            assert [time["batch"] for time in row["times"]] == [1, 8]
            assert {time["repetitions"] for time in row["times"]} == {3}
            assert sum(row["exits"]) == pytest.approx(1)
            mean = sum(share * glimpse for glimpse, share in enumerate(row["exits"], 1))
            assert mean == pytest.approx(row["mean_glimpses"])
    means = {row["candidate"]: row for row in result["candidates"]}
    assert {"plain glimpse_cnn, 16 px", "plain glimpse_cnn, 32 px"} <= means.keys()
    for place, name in enumerate(means):
        each = [entry["candidates"][place]["accuracy"] for entry in result["runs"]]
        assert means[name]["accuracies"] == each
        assert means[name]["accuracy"] == pytest.approx(sum(each) / 2)
        whole = means["all glimpses"]["accuracies"]
        assert means[name]["falls"] == pytest.approx([whole[0] - each[0], whole[1] - each[1]])
    assert out.with_suffix(".png").stat().st_size > 1000
    assert "means over seeds 0, 1" in capfd.readouterr().out


def test_no_digit_that_judges_early_exit_calibrated_it(tmp_path):
    """Test scenes are made of other digits than val's; data without test are cut into halves."""
    run = load_run(make_run(tmp_path / "run"))
    held_out = open_held_out(run, 10)
    scenes = DigitScenes(DigitsConfig(), "test", canvas=32)
    assert held_out.split == "test"
    assert held_out.images.equal(torch.stack([scenes[0, place].image for place in range(10)]))
    calibration = torch.cat([batch.images for batch in held_out.calibration])
    val = DigitScenes(DigitsConfig(), "val", canvas=32)
    assert calibration.equal(torch.stack([val[0, place].image for place in range(10)]))

    for index in range(4):
        folder = tmp_path / "photos" / "val" / str(index % 2)
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (32, 32), 60 * index).save(folder / f"{index}.png")
    data = FolderConfig(data=tmp_path / "photos")
    halves = open_held_out(Run(replace(run.config, data=data), ["0", "1"], 1, run.model, run.folder), 10)
    assert halves.split == "half of val"
    kept = torch.cat([batch.images for batch in halves.calibration])
    shades = {int(image.float().mean()) for image in torch.cat([kept, halves.images])}
    assert shades == {0, 60, 120, 180}
    assert len(kept) == len(halves.images) == 2


def test_the_legend_of_early_exit_names_what_is_drawn():
    def candidate(name: str) -> dict[str, Any]:
        accuracy = {"accuracy": 0.9, "accuracies": [0.88, 0.92]}
        return {"candidate": name, **accuracy, "flops": 1e6, "times": [{"batch": 1, "ms": 2.0}]}

    def legend(*names: str) -> set[str]:
        figure = plot_early_exit({"candidates": [candidate(name) for name in names]})
        return {text.get_text() for text in figure.legends[0].get_texts()}

    drawn = {"glimpses, early exit", "all glimpses", "calibrated"}
    assert legend("all glimpses", "calibrated", "1.45 glimpses") == drawn
    assert legend("all glimpses", "calibrated", "plain glimpse_cnn, 20 px") == drawn | {"plain backbone"}


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["speed", "glimpse_cnn", "--batch-sizes", "0"], 2, "batch_sizes must be 1 or more, got 0"),
        (["speed", "glimpse_cnn", "--repetitions", "0"], 2, "repetitions must be 1 or more"),
        (["speed", "glimpse_cnn", "--glimpse-size", "300"], 2, "image_size 224 is smaller than glimpse_size 300"),
        (["scaling", "glimpse_cnn", "--glimpses", "-1"], 2, "glimpses must be 1 or more"),
        (["early-exit", "RUN", "--within", "2"], 2, "within must be 0 or more"),
        (["early-exit", "RUN", "--plain", "RUN"], 1, "is no plain backbone: it takes 3 glimpses"),
        (["early-exit", "RUN", "RUN", "--plain", "PLAIN"], 1, "got 1 runs of 'plain glimpse_cnn, 8 px' for 2"),
        (["early-exit", "RUN", "PLAIN"], 1, "PLAIN differs from RUN in its model: num_glimpses is 1, not 3"),
        (["early-exit", "RUN", "--timed", "5"], 1, "4 images to time cannot be split into 10 blocks"),
        (["early-exit"], 2, "no runs: name run folders"),
        (["early-exit", "nowhere"], 1, "no such run folder: nowhere"),
    ],
)
def test_wrong_usage_is_told_in_one_line(tmp_path, capfd, monkeypatch, arguments, code, told):
    make_run(tmp_path / "RUN")
    make_run(tmp_path / "PLAIN", num_glimpses=1)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        glimpsenet("bench", *arguments, "--device", "cpu", *(["--scenes", "4"] if "early" in arguments[0] else []))
    error = capfd.readouterr().err
    assert caught.value.code == code
    assert told in error
    assert error.count("glimpsenet: error: ") == 1
