import csv
import errno
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from glimpsenet.cli import main
from glimpsenet.errors import UserError
from glimpsenet.training.task import GlimpseTask

pytestmark = pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.*", "ignore:Checkpoint directory .* exists")

POLICIES = ["learned", "random", "center", "none", "oracle"]
SMALL = ["--backbone", "glimpse_cnn", "--image-size", "40", "--glimpse-size", "16", "--precision", "float32"]
SMALL += ["--max-steps", "3", "--batch-size", "8", "--workers", "0", "--validations", "1", "--device", "cpu"]
TINY = [*SMALL, "--train-scenes", "30", "--val-scenes", "6", "--test-scenes", "7", "--num-glimpses", "2"]


def glimpsenet(*arguments) -> None:
    main([str(argument) for argument in arguments])


@pytest.fixture
def out(capfd):
    """Runs a command that succeeds; what it wrote to standard output."""

    def run(*arguments) -> str:
        capfd.readouterr()
        glimpsenet(*arguments)
        return capfd.readouterr().out

    return run


@pytest.fixture
def refused(capfd):
    """Runs a command that fails with ``code`` (or one of them); its only line on standard error but for data warnings.

    The scenes have few validation images: a class without any is told wherever they are measured on.
    """

    def run(code: int | set[int], *arguments) -> str:
        capfd.readouterr()
        with pytest.raises(SystemExit) as caught:
            glimpsenet(*arguments)
        output, error = capfd.readouterr()
        assert caught.value.code in (code if isinstance(code, set) else {code})
        assert output == ""
        lines = [
            line for line in error.splitlines(keepends=True) if not line.startswith("glimpsenet: warning: no images")
        ]
        assert len(lines) == 1
        assert lines[0].startswith("glimpsenet: error: ")
        return lines[0]

    return run


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    """An image folder of digit scenes."""
    folder = tmp_path_factory.mktemp("data") / "scenes"
    glimpsenet(
        "data", "digits", folder, *("--train-scenes", 60, "--val-scenes", 20, "--test-scenes", 30), "--image-size", 48
    )
    return folder


@pytest.fixture(scope="module")
def run(scenes, tmp_path_factory) -> Path:
    """A run on photos: 3 steps."""
    folder = tmp_path_factory.mktemp("runs") / "photos"
    glimpsenet("train", "image-folder", "--data", scenes, "--out", folder, "--no-pretrained", *SMALL)
    return folder


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    """A run on digit scenes with another architecture: 2 glimpses, 1 channel."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    glimpsenet("train", "digits", "--out", folder, *TINY)
    return folder


@pytest.fixture
def photos(tmp_path) -> Path:
    """A landscape, a portrait, and a file that is cut off."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, (width, height) in {"a, wide.png": (60, 30), "b.png": (30, 60)}.items():
        Image.fromarray(rng.integers(256, size=(height, width, 3), dtype=np.uint8)).save(folder / name)
    (folder / "c.png").write_bytes((folder / "b.png").read_bytes()[:999])
    return folder


@pytest.fixture
def good(photos) -> Path:
    """The same without the bad file."""
    (photos / "c.png").unlink()
    return photos


# ---- help and usage ------------------------------------------------------------------------------------------------


def test_help_comes_without_torch():
    script = "import sys, runpy; sys.argv[1:] = ['--help']; code = 0\n"
    script += "try: runpy.run_module('glimpsenet', run_name='__main__')\nexcept SystemExit as stop: code = stop.code\n"
    script += "assert not {'torch', 'timm', 'matplotlib', 'sklearn'} & sys.modules.keys(); sys.exit(code)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for command in ("train", "evaluate", "predict", "data"):
        assert command in done.stdout


def test_the_flags_of_training_are_spelt_as_ever(capsys):
    with pytest.raises(SystemExit) as caught:
        glimpsenet("train", "digits", "--help")
    assert caught.value.code == 0
    words = capsys.readouterr().out.replace(",", " ").split()
    flags = "out resume device devices num-nodes seed max-steps epochs batch-size backbone backbone-weights image-size"
    for flag in f"{flags} glimpse-size num-glimpses scale-range learning-rate precision workers validations".split():
        assert f"--{flag}" in words


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("evaluate", "--policy --data --split --batch-size --workers --seed --skip-bad --device --figure --json"),
        ("predict", "--top --figure --batch-size --skip-bad --device --json --csv"),
    ],
)
def test_the_flags_of_use_are_spelt_as_ever(capsys, command, flags):
    with pytest.raises(SystemExit) as caught:
        glimpsenet(command, "--help")
    assert caught.value.code == 0
    assert set(flags.split()) <= set(capsys.readouterr().out.replace(",", " ").split())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["train", "baseline", "--policy.scales", "0.3"], "policy 'tokens' has it, this recipe has policy 'linear'"),
        (["train", "digits", "--scales", "0.3"], "did you mean '--policy.scales'?"),
        (["train", "baseline", "--num-clutter", "3"], "data 'digits' has it, this recipe has data 'folder'"),
        (
            ["train", "whole-image", "--fusion.num-heads", "2"],
            "fusion 'attention' has it, this recipe has fusion 'none'",
        ),
    ],
)
def test_a_setting_of_another_kind_is_wrong_usage_naming_the_kind_that_has_it(capsys, arguments, told):
    with pytest.raises(SystemExit) as caught:
        glimpsenet(*arguments)
    assert caught.value.code == 2
    assert f"no flag '{arguments[2]}'; {told}" in capsys.readouterr().err


def test_help_of_a_recipe_shows_what_applies_to_it(capsys):
    def help_of(recipe):
        with pytest.raises(SystemExit):
            glimpsenet("train", recipe, "--help")
        return capsys.readouterr().out

    digits, baseline = help_of("digits"), help_of("baseline")
    assert "--policy.scales" in digits
    assert "--policy.gradient-factor" not in digits
    assert "--num-clutter" in digits
    assert "--augmentation" not in digits
    assert "--policy.scales" not in baseline
    assert "--augmentation {none,light,imagenet}" in baseline


@pytest.mark.parametrize("recipe", ["image-folder", "digits"])  # whose defaults differ
@pytest.mark.parametrize("name", ["pretrained", "glimpse-ensemble"])
def test_help_shows_what_a_setting_is_called_and_how_to_unset_it(capsys, recipe, name):
    with pytest.raises(SystemExit):
        glimpsenet("train", recipe, "--help")
    assert f"--{name}, --no-{name}" in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        glimpsenet("train", recipe, f"--{name}", f"--no-{name}", "--seed", "-1")
    assert caught.value.code == 2
    assert "seed must be" in capsys.readouterr().err  # and of nothing else


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["train"],
        ["train", "digits", "--learning-rat", "1"],
        ["train", "digits", "--epochs", "many"],
        ["train", "digits", "--batch-norm", "double"],
        ["train", "digits", "--sampling.align-corners"],
        ["evaluate"],
        ["predict"],
        ["evaluate", "run", "--policy", "psychic"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2_and_says_nothing_on_standard_output(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        glimpsenet(*arguments)
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("evaluat", "no command 'evaluat'; did you mean 'evaluate'?"),
        ("inspect arows", "no command 'arows'; did you mean 'arrows'?"),
        ("fly", "no command 'fly'; there are train, evaluate,"),
        ("train image-folders", "no recipe 'image-folders'; did you mean 'image-folder'?"),
        ("train digits --max-stepss 3", "no flag '--max-stepss'; did you mean '--max-steps'?"),
        ("predict run a.png --exit_confidenc=0.5", "no flag '--exit-confidenc'; did you mean '--exit-confidence'?"),
        ("evaluate run --zzz", "no flag '--zzz'; glimpsenet evaluate --help lists them"),
    ],
)
def test_a_misspelt_word_is_told_in_one_line(refused, arguments, told):
    assert told in refused(2, *arguments.split())


def test_other_wrong_usage_is_told_once_by_tyro(capsys):
    for arguments, told in {"train digits --epochs many": "'many'", "inspect inject run a.png": "--set"}.items():
        with pytest.raises(SystemExit) as caught:
            glimpsenet(*arguments.split())
        error = capsys.readouterr().err
        assert caught.value.code == 2
        assert error.count("For full helptext") == 1
        assert told in error


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["train", "digits", "--glimpse-size", "90"], "image_size 80 is smaller than glimpse_size 90"),
        (["train", "digits", "--scale-range", "0.5", "0.2"], "scale_range"),
        (["train", "digits", "--batch-size", "0"], "batch_size"),
        (["train", "digits", "--devices", "0"], "devices"),
        (["predict", "run", "a.png", "--json", "--csv"], "--json or --csv"),
        (["predict", "run"], "no images"),
        (["predict", "run", "a.png", "--batch-size", "0"], "batch_size|batch-size"),
        (["predict", "run", "a.png", "--top", "-1"], "top"),
        (["evaluate", "run", "--batch-size", "0"], "batch_size|batch-size"),
        (["evaluate", "run", "--workers", "-1"], "workers"),
        (["data", "digits", "new", "--seed", "-1"], "seed"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_impossible_settings_exit_with_2_and_one_line(refused, arguments, told, tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").symlink_to(run)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    error = refused(2, *arguments)
    assert any(name in error for name in told.split("|"))


# ---- data ----------------------------------------------------------------------------------------------------------


def test_digits_are_written_as_an_image_folder(scenes, refused, out, tmp_path):
    assert len(list(scenes.glob("train/*/*.png"))) == 60
    assert len(list(scenes.glob("val/*/*.png"))) == 20
    assert len(list(scenes.glob("test/*/*.png"))) == 30
    assert len((scenes / "boxes.csv").read_text().splitlines()) == 111
    with Image.open(next(scenes.glob("val/*/*.png"))) as picture:
        assert picture.size == (48, 48)
    assert str(scenes) in refused(1, "data", "digits", scenes)
    few = ["--train-scenes", 3, "--val-scenes", 2, "--test-scenes", 1, "--image-size", 20]
    told = out("data", "digits", tmp_path / "few", *few)
    assert told == f"wrote 6 scenes to {tmp_path / 'few'}\n"


def test_too_small_scenes_are_refused(refused, tmp_path):
    assert "16 or more, got 10" in refused(1, "data", "digits", tmp_path / "new", "--image-size", 10)
    assert "16 or more, got 10" in refused(
        1, "train", "digits", "--out", tmp_path / "new", "--image-size", 10, "--glimpse-size", 8
    )
    assert not (tmp_path / "new").exists()


# ---- train ---------------------------------------------------------------------------------------------------------


def test_training_tells_its_accuracy_and_where_the_run_is(out, tmp_path):
    told = out("train", "digits", "--out", tmp_path / "run", *TINY)
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert "6 val images" in told
    line = next(line for line in told.splitlines() if "learned: accuracy" in line)
    assert line.split()[2:] == [f"{value:.3f}" for value in summary["metrics"]["accuracy"]]
    assert f"best on validation, at step {summary['best_step']} of 3" in told
    assert 1 <= summary["best_step"] <= 3
    assert f"the run is in {tmp_path / 'run'}" in " ".join(told.split())


def test_a_run_is_not_overwritten_but_resumed(refused, out, digits):
    before = safetensors.torch.load_file(digits / "model.safetensors")
    for way in ([], ["--resume"]):
        error = refused(1, "train", "digits", "--out", digits, *TINY, *way, "--learning-rate", "0.5")
        assert "learning_rate (it was 0.003, now 0.5)" in error
    out("train", "digits", "--out", digits, *TINY, "--resume")
    after = safetensors.torch.load_file(digits / "model.safetensors")
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_unknown_backbones_are_told_with_the_nearest(refused, tmp_path):
    error = refused(1, "train", "digits", "--out", tmp_path / "run", "--backbone", "resnet19")
    assert "'resnet19'" in error
    assert "resnet18" in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--backbone-weights", "absent.safetensors"], "absent.safetensors"),
        (["--device", "abacus"], "unknown device 'abacus'"),
        (["--fusion.num-heads", "5"], "5 heads"),
        (["--out", "file.txt/run"], "file.txt"),
        (["--out", "file.txt"], "file.txt"),
    ],
)
def test_what_cannot_be_trained_is_told(refused, tmp_path, monkeypatch, flags, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.txt").touch()
    assert told in refused(1, "train", "digits", "--out", "run", *TINY, *flags)


def test_pretrained_weights_that_do_not_exist_are_told(refused, scenes, tmp_path):
    error = refused(1, "train", "image-folder", "--data", scenes, "--out", tmp_path / "run", *SMALL)
    assert "--no-pretrained" in error


def test_unreadable_training_images_stop_or_are_skipped(refused, capfd, scenes, tmp_path):
    data = tmp_path / "data"
    for file in [*scenes.glob("*/*/*.png")]:
        (data / file.relative_to(scenes)).parent.mkdir(parents=True, exist_ok=True)
        (data / file.relative_to(scenes)).symlink_to(file)
    bad = next(data.glob("val/*/*.png"))
    bad.unlink()
    bad.write_text("no image")
    command = ["train", "image-folder", "--data", data, "--no-pretrained", *SMALL]
    error = refused_after_progress(capfd, *command, "--out", tmp_path / "a")
    assert str(bad) in error
    assert "--skip-bad" in error
    glimpsenet(*command, "--out", tmp_path / "b", "--skip-bad")
    told = capfd.readouterr().out
    assert "skipped 1 unreadable image, named in summary.json" in told
    assert told.count("skipped") == 1
    assert str(bad) in json.loads((tmp_path / "b/summary.json").read_text())["skipped_images"][0]


def test_a_disk_that_is_full_at_the_end_is_told(capfd, tmp_path, monkeypatch):
    def write(model, file):
        raise OSError(errno.ENOSPC, "No space left on device", file)

    monkeypatch.setattr("safetensors.torch.save_model", write)
    error = refused_after_progress(capfd, "train", "digits", "--out", tmp_path / "run", *TINY)
    assert error.startswith("glimpsenet: error: ")
    assert "No space left on device" in error


def refused_after_progress(capfd, *arguments) -> str:
    """The last line on standard error of a command that fails with 1."""
    with pytest.raises(SystemExit) as caught:
        glimpsenet(*arguments)
    assert caught.value.code == 1
    return capfd.readouterr().err.splitlines()[-1]


def test_ctrl_c_exits_with_130_and_says_how_to_go_on(capfd, tmp_path, monkeypatch):
    def press(self, batch):
        raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(GlimpseTask, "training_step", press)
    try:
        with pytest.raises(SystemExit) as caught:
            glimpsenet("train", "digits", "--out", tmp_path / "run", *TINY)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert caught.value.code == 130
    assert "--resume" in capfd.readouterr().err.splitlines()[-1]


# ---- evaluate ------------------------------------------------------------------------------------------------------


def check_result(result: dict, policy: str, scenes: Path) -> None:
    """Whether the numbers agree with each other and with the folder."""
    counts = {folder.name: len(list(folder.iterdir())) for folder in sorted((scenes / "test").iterdir())}
    steps = 1 if policy == "none" else 4
    assert (result["policy"], result["num_images"], result["skipped"]) == (policy, 30, [])
    for name in ("accuracy", "loss", "mean_scale", "hit_rate", "found_rate"):
        assert len(result[name]) == steps
    for name in ("accuracy", "hit_rate", "found_rate"):
        assert all(0 <= value <= 1 for value in result[name])
    assert result["hit_rate"][0] == result["found_rate"][0] == 0
    assert result["found_rate"] == sorted(result["found_rate"])
    assert all(found >= hit for found, hit in zip(result["found_rate"], result["hit_rate"], strict=True))
    assert result["mean_scale"][0] == 1
    assert all(0.2 <= scale <= 0.5 for scale in result["mean_scale"][1:])
    matrix = np.array(result["confusion_matrix"])
    assert matrix.shape == (10, 10)
    assert matrix.sum(1).tolist() == [counts.get(str(digit), 0) for digit in range(10)]
    assert result["accuracy"][-1] == pytest.approx(matrix.trace() / 30)
    for digit, row in enumerate(matrix):
        rate = result["per_class"][str(digit)]
        assert rate == (pytest.approx(row[digit] / row.sum()) if row.sum() else None)


@pytest.mark.parametrize("policy", POLICIES)
def test_evaluate_prints_one_json_object_that_adds_up(out, run, scenes, policy):
    result = json.loads(out("evaluate", run, "--policy", policy, "--json", "--device", "cpu"))
    check_result(result, policy, scenes)
    if policy == "oracle":  # it knows where to look, and every digit fits into its windows
        assert result["hit_rate"][1:] == [1, 1, 1]
    if policy == "center":  # at native resolution
        assert result["mean_scale"][1:] == pytest.approx([0.4] * 3)
    if policy == "learned":
        metrics = json.loads((run / "summary.json").read_text())["test_metrics"]
        assert metrics["accuracy"] == pytest.approx(result["accuracy"])
        assert metrics["loss"] == pytest.approx(result["loss"])


def test_evaluate_all_has_every_policy_and_the_gain_share(out, run, scenes):
    together = json.loads(out("evaluate", run, "--policy", "all", "--json"))
    assert together.keys() == {"policies", "gain_due_to_placement", "split"}
    assert list(together["policies"]) == POLICIES
    last = {}
    for policy, result in together["policies"].items():
        check_result(result, policy, scenes)
        last[policy] = result["accuracy"][-1]
    gain = last["learned"] - last["none"]
    expected = pytest.approx((last["learned"] - last["random"]) / gain) if gain > 0 else None
    assert together["gain_due_to_placement"] == expected


@pytest.mark.parametrize("policy", [*POLICIES, "all"])
def test_evaluate_prints_tables(out, run, policy):
    told = out("evaluate", run, "--policy", policy)
    assert "30 test images" in told
    for name in POLICIES if policy == "all" else [policy]:
        line = next(line for line in told.splitlines() if f"{name}: accuracy" in line)
        assert len(line.split()[2:]) == (1 if name == "none" else 4)
    result = json.loads(out("evaluate", run, "--policy", "learned" if policy == "all" else policy, "--json"))
    shown = told[told.index("worst first") :].splitlines()
    rates = {line.split()[0]: line.split()[1] for line in shown if line.split()[:1] and line.split()[0].isdecimal()}
    assert rates == {name: f"{rate:.3f}" for name, rate in result["per_class"].items() if rate is not None}
    assert list(rates.values()) == sorted(rates.values())


def test_random_glimpses_follow_the_seed_and_results_not_the_batch_size(out, run):
    def evaluate(*flags) -> dict:
        return json.loads(out("evaluate", run, "--json", *flags))

    random = ["--policy", "random", "--seed"]
    assert evaluate(*random, 1) == evaluate(*random, 1)
    assert evaluate(*random, 1)["mean_scale"] != evaluate(*random, 2)["mean_scale"]
    assert evaluate("--batch-size", 7)["confusion_matrix"] == evaluate("--batch-size", 64)["confusion_matrix"]


def test_evaluate_on_another_folder(out, refused, run, scenes, tmp_path):
    file = next(scenes.glob("val/*/*.png"))
    copy = tmp_path / "other/val" / file.parent.name / "a.png"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(file.read_bytes())
    result = json.loads(out("evaluate", run, "--data", tmp_path / "other", "--json"))
    assert result["num_images"] == 1
    assert result["hit_rate"] is None
    assert result["found_rate"] is None
    assert [name for name, rate in result["per_class"].items() if rate is not None] == [file.parent.name]
    together = json.loads(out("evaluate", run, "--data", tmp_path / "other", "--policy", "all", "--json"))
    assert list(together["policies"]) == POLICIES[:-1]
    assert "boxes.csv" in refused(1, "evaluate", run, "--data", tmp_path / "other", "--policy", "oracle")
    copy.write_text("no image")
    assert str(copy) in refused(1, "evaluate", run, "--data", tmp_path / "other", "--json")
    assert "nothing to evaluate on" in refused(1, "evaluate", run, "--data", tmp_path / "other", "--skip-bad")
    copy.parent.rename(copy.parent.parent / "unheard")
    assert "'unheard'" in refused(1, "evaluate", run, "--data", tmp_path / "other")
    assert "absent" in refused(1, "evaluate", run, "--data", tmp_path / "absent")


def test_a_run_on_scenes_is_evaluated_on_photos_too(out, digits, scenes):
    assert json.loads(out("evaluate", digits, "--json"))["num_images"] == 7
    assert json.loads(out("evaluate", digits, "--data", scenes, "--json"))["num_images"] == 30


def test_evaluate_draws_the_confusion_matrix(out, run, tmp_path):
    told = out("evaluate", run, "--figure", tmp_path / "new/matrix.png", "--json")
    assert json.loads(told)["num_images"] == 30
    with Image.open(tmp_path / "new/matrix.png") as picture:
        assert min(picture.size) > 300
    assert str(tmp_path / "new/matrix.png") in out("evaluate", run, "--figure", tmp_path / "new/matrix.png")


# ---- predict -------------------------------------------------------------------------------------------------------


def test_predict_tells_where_it_looked_in_the_photos_own_pixels(out, run, good):
    result = json.loads(out("predict", run, good, "--json"))
    assert result.keys() == {"predictions", "skipped"}
    assert result["skipped"] == []
    wide, high = result["predictions"]
    assert [wide["file"], high["file"]] == [str(good / "a, wide.png"), str(good / "b.png")]
    # The first glimpse is the photo with its padding: a square of its longer side around its centre.
    assert wide["glimpses"][0]["box"] == pytest.approx([0, -15, 60, 45])
    assert high["glimpses"][0]["box"] == pytest.approx([-15, 0, 45, 60])
    for prediction in (wide, high):
        assert [taken["glimpse"] for taken in prediction["glimpses"]] == [1, 2, 3, 4]
        left, top, _, _ = prediction["glimpses"][0]["box"]
        for taken in prediction["glimpses"]:
            s, tx, ty = taken["window"]
            edges = [corner + 30 * (1 + t + side) for side in (-s, s) for corner, t in ((left, tx), (top, ty))]
            assert taken["box"] == pytest.approx(edges, abs=1e-3)
        last = prediction["glimpses"][-1]
        assert (prediction["class"], prediction["probability"]) == (last["class"], last["probability"])
        assert prediction["top"][0] == {"class": last["class"], "probability": last["probability"]}
        assert len(prediction["top"]) == 3
        assert [entry["probability"] for entry in prediction["top"]] == sorted(
            (entry["probability"] for entry in prediction["top"]), reverse=True
        )


def test_all_classes_probabilities_add_up_to_one(out, run, good):
    for prediction in json.loads(out("predict", run, good, "--json", "--top", 99))["predictions"]:
        assert len(prediction["top"]) == 10
        assert sum(entry["probability"] for entry in prediction["top"]) == pytest.approx(1)


def test_predictions_are_those_that_evaluation_counts(out, run, scenes):
    predictions = json.loads(out("predict", run, scenes / "test", "--json", "--batch-size", 7))["predictions"]
    matrix = np.zeros((10, 10), int)
    for prediction in predictions:
        matrix[int(Path(prediction["file"]).parent.name), int(prediction["class"])] += 1
    assert matrix.tolist() == json.loads(out("evaluate", run, "--json"))["confusion_matrix"]


def test_a_number_from_val_is_said_to_be_optimistic(out, refused, run, scenes, tmp_path):
    assert json.loads(out("evaluate", run, "--json"))["split"] == "test"
    assert "expect less on new images" not in out("evaluate", run)
    on_val = json.loads(out("evaluate", run, "--split", "val", "--json"))
    assert (on_val["split"], on_val["num_images"]) == ("val", 20)
    assert "expect less on new images" in out("evaluate", run, "--split", "val")
    (tmp_path / "val").symlink_to(scenes / "val")
    assert "expect less on new images" in out("evaluate", run, "--data", tmp_path)
    assert "no test images" in refused(1, "evaluate", run, "--data", tmp_path, "--split", "test")


def test_predict_writes_csv_in_the_order_of_the_files(out, run, good):
    order = [good / "b.png", good / "a, wide.png", good / "b.png"]
    rows = list(csv.DictReader(io.StringIO(out("predict", run, *order, "--csv"))))
    predictions = json.loads(out("predict", run, *order, "--json"))["predictions"]
    assert [row["file"] for row in rows] == [str(file) for file in order]
    for row, prediction in zip(rows, predictions, strict=True):
        assert list(row)[:3] == ["file", "class", "probability"]
        assert len(row) == 3 + 4 * 5
        assert row["class"] == prediction["class"] == row["class_4"]
        assert float(row["probability"]) == pytest.approx(prediction["probability"], abs=6e-5)
        for taken in prediction["glimpses"]:
            number = taken["glimpse"]
            assert row[f"class_{number}"] == taken["class"]
            edges = [float(row[f"{edge}_{number}"]) for edge in ("x0", "y0", "x1", "y1")]
            assert edges == pytest.approx(taken["box"], abs=0.051)


def test_predict_prints_a_table_with_a_line_an_image(out, run, good):
    told = out("predict", run, good / "b.png")
    prediction = json.loads(out("predict", run, good / "b.png", "--json"))["predictions"][0]
    line = next(line for line in told.splitlines() if "b.png" in line)
    first = prediction["glimpses"][0]["class"]
    assert line.split() == [str(good / "b.png"), prediction["class"], f"{prediction['probability']:.2f}", first]


@pytest.mark.parametrize("flags", [[], ["--json"], ["--csv"]])
def test_unreadable_photos_stop_prediction_with_their_name(refused, run, photos, flags):
    error = refused(1, "predict", run, photos, *flags)
    assert str(photos / "c.png") in error
    assert "--skip-bad" in error


def test_unreadable_photos_are_skipped_when_asked_for(capfd, run, photos):
    capfd.readouterr()
    glimpsenet("predict", run, photos, "--skip-bad", "--json")
    output, error = capfd.readouterr()
    result = json.loads(output)
    assert len(result["predictions"]) == 2
    assert len(result["skipped"]) == 1
    assert str(photos / "c.png") in result["skipped"][0]
    assert error == f"skipped: {result['skipped'][0]}\n"
    glimpsenet("predict", run, photos, "--skip-bad", "--csv")
    output, error = capfd.readouterr()
    assert len(output.splitlines()) == 3
    assert error == f"skipped: {result['skipped'][0]}\n"


def test_a_prediction_without_any_readable_photo_fails(refused, run, photos):
    for flags in ([], ["--json"], ["--csv"]):
        error = refused(1, "predict", run, photos / "c.png", "--skip-bad", *flags)
        assert "no readable image among 1 file; the first: cannot read image" in error


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_predict_draws_scanpaths(capfd, run, good, tmp_path, flags):
    capfd.readouterr()
    glimpsenet("predict", run, good, "--figure", tmp_path / "new/paths.png", *flags)
    output, error = capfd.readouterr()
    told = error if flags else output
    assert f"drew {tmp_path / 'new/paths.png'}" in told
    if flags:
        assert len(json.loads(output)["predictions"]) == 2
    with Image.open(tmp_path / "new/paths.png") as picture:
        width, height = picture.size
        assert width > 600  # the photo and four glimpses
        assert height > 400  # two rows
        assert len(picture.convert("RGB").getcolors(2**24)) > 100


@pytest.mark.parametrize("command", ["predict", "evaluate"])
@pytest.mark.parametrize("figure", ["picture.doc", "file.txt/picture.png"])
def test_figures_that_cannot_be_written_are_told(refused, run, good, tmp_path, command, figure):
    (tmp_path / "file.txt").touch()
    images = [good] if command == "predict" else []
    assert Path(figure).parts[0] in refused({1, 2}, command, run, *images, "--figure", tmp_path / figure)


def test_nothing_to_predict_is_told(refused, run, tmp_path):
    assert "absent.png" in refused(1, "predict", run, tmp_path / "absent.png")
    assert "no images in" in refused(1, "predict", run, tmp_path)


# ---- run folders ---------------------------------------------------------------------------------------------------


def copy_run(run: Path, folder: Path) -> Path:
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((run / name).read_bytes())
    return folder


def copy_weights(folder: Path, other: Path) -> None:
    (folder / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())


def cut_weights(folder: Path, other: Path) -> None:
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])


def remove_weights(folder: Path, other: Path) -> None:
    (folder / "model.safetensors").unlink()


def cut_config(folder: Path, other: Path) -> None:
    (folder / "config.json").write_text((folder / "config.json").read_text()[:-20])


def misspell_setting(folder: Path, other: Path) -> None:
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"glimpse_size": 16', '"glimpse_siz": 16'))


def write_list(folder: Path, other: Path) -> None:
    (folder / "config.json").write_text("[1]")


def write_bytes(folder: Path, other: Path) -> None:
    (folder / "config.json").write_bytes(b"\xff\xfe{")


SPOILT = [
    (copy_weights, "model.safetensors"),
    (cut_weights, "model.safetensors"),
    (remove_weights, "no weights"),
    (cut_config, "config.json is damaged"),
    (misspell_setting, "glimpse_siz"),
    (write_list, "config.json is damaged"),
    (write_bytes, "config.json is damaged"),
]


@pytest.mark.parametrize(("spoil", "told"), SPOILT, ids=lambda value: getattr(value, "__name__", ""))
def test_a_spoilt_run_is_told_in_one_line(refused, run, digits, good, tmp_path, spoil, told):
    folder = copy_run(run, tmp_path / "run")
    spoil(folder, digits)
    for command in (["evaluate", folder], ["predict", folder, good, "--json"]):
        error = refused(1, *command)
        assert str(folder) in error
        assert told in error


def test_what_is_no_run_is_told(refused, scenes, tmp_path):
    assert "no such run folder" in refused(1, "evaluate", tmp_path / "absent")
    assert "no config.json" in refused(1, "evaluate", scenes)
    assert "no config.json" in refused(1, "train", "digits", "--out", scenes, "--resume", *TINY)


def test_a_copied_run_folder_is_all_that_prediction_needs(out, run, good, tmp_path):
    copy = copy_run(run, tmp_path / "elsewhere")
    assert out("predict", copy, good, "--csv") == out("predict", run, good, "--csv")


def test_debug_shows_where_the_error_comes_from(tmp_path):
    with pytest.raises(UserError, match="no such run folder"):
        glimpsenet("evaluate", tmp_path / "absent", "--debug")


def test_what_libraries_print_does_not_get_into_json(out, run, good, monkeypatch):
    load = torch.nn.Module.eval

    def chatty(self):
        os.write(1, b"a library says hello")
        return load(self)

    monkeypatch.setattr("glimpsenet.models.glimpsenet.GlimpseNet.eval", chatty)
    assert len(json.loads(out("predict", run, good, "--json"))["predictions"]) == 2
