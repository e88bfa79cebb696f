"""Sharing against a folder, and against a Hub that keeps its repositories in folders: no network."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import ModelCard
from huggingface_hub.errors import RepositoryNotFoundError

import glimpsenet
from glimpsenet.cli import main
from glimpsenet.config import Config
from glimpsenet.data.config import DigitsConfig, FolderConfig
from glimpsenet.errors import UserError
from glimpsenet.models.config import ModelConfig
from glimpsenet.runs import Description, Run, card, load_run, save_weights, write_description

MODEL = ModelConfig(backbone="glimpse_cnn", num_glimpses=2, image_size=20, glimpse_size=8, batch_norm="separate")
SUMMARY = {
    "metrics": {
        "num_images": 1234,
        "accuracy": [0.51236, 0.875],
        "mean_scale": [1.0, 0.3],
        "found_rate": [0.0, 0.625],
        "skipped": ["/home/somebody/bad.jpg: broken"],
    },
    "skipped_images": ["/home/somebody/bad.jpg: broken"],
    "steps": 77,
    "cost": {"flops": [10**9, 2 * 10**9], "share_of_full_pass": [0.25, 0.5], "parameters": 5},
}


@pytest.fixture
def run(tmp_path) -> Run:
    config = Config(
        model=replace(MODEL, backbone_weights=Path("/home/somebody/w.safetensors")),
        data=FolderConfig(data=Path("/home/somebody/photos")),
    )
    folder = tmp_path / "runs" / "birds"
    folder.mkdir(parents=True)
    description = Description(config, ["heron", "робин"], 3)
    write_description(folder, description)
    save_weights(description.build(initial_weights=False), folder)
    (folder / "summary.json").write_text(json.dumps(SUMMARY))
    (folder / "metrics.csv").write_text("step,loss\n1,2\n")
    (folder / "tensorboard").mkdir()
    return load_run(folder)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """A Hub of folders, and a token."""
    root = tmp_path / "hub"

    class Repository:
        def __init__(self, repo_id):
            self.repo_id = repo_id

    def create_repo(self, repo_id, *, private, exist_ok):
        assert exist_ok
        (root / repo_id).mkdir(parents=True, exist_ok=True)
        (root / f"{repo_id}.private").write_text(str(private))
        return Repository(repo_id)

    def upload_folder(self, *, repo_id, folder_path, **_):
        shutil.copytree(folder_path, root / repo_id, dirs_exist_ok=True)
        return f"https://hub/{repo_id}/commit/1"

    def snapshot_download(repo_id, *, allow_patterns, revision=None):
        if not (root / repo_id).is_dir():
            response = type("Response", (), {"status_code": 404, "headers": {}, "request": None})()
            raise RepositoryNotFoundError("404 Client Error.\n\nsecond line", response=response)
        cache = tmp_path / "cache" / repo_id / (revision or "main")
        cache.mkdir(parents=True, exist_ok=True)
        for name in allow_patterns:
            if (root / repo_id / name).exists():
                shutil.copyfile(root / repo_id / name, cache / name)
        return str(cache)

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create_repo)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload_folder)
    monkeypatch.setattr("glimpsenet.runs.hub.snapshot_download", snapshot_download)
    monkeypatch.setattr("glimpsenet.runs.hub.get_token", lambda: "hf_secret")
    return root


def weights(run: Run) -> dict[str, torch.Tensor]:
    return run.model.state_dict()


def assert_same(one: Run, other: Run) -> None:
    assert (one.classes, one.channels) == (other.classes, other.channels)
    assert replace(one.config.model, backbone_weights=None) == replace(other.config.model, backbone_weights=None)
    torch.testing.assert_close(weights(one), weights(other), rtol=0, atol=0)


def test_a_saved_folder_is_a_run_folder_and_says_nothing_of_this_machine(run, tmp_path):
    shared = tmp_path / "shared"
    run.save_pretrained(shared)
    assert {file.name for file in shared.iterdir()} == {
        "README.md", "config.json", "metrics.csv", "model.safetensors", "summary.json",
    }  # fmt: skip
    assert_same(Run.from_pretrained(shared), run)
    assert_same(load_run(shared), run)
    assert not glimpsenet.load(shared).training
    for name in ("README.md", "config.json", "summary.json"):
        assert "somebody" not in (shared / name).read_text()
    assert load_run(shared).config.data.data == Path("photos")
    assert json.loads((shared / "summary.json").read_text())["metrics"]["accuracy"] == [0.51236, 0.875]


def test_the_card_tells_what_was_measured(run):
    card = run.generate_model_card("ada/birds")
    assert (card.data.library_name, card.data.pipeline_tag) == ("glimpsenet", "image-classification")
    assert [(r.metric_name, r.metric_value, r.dataset_name) for r in card.data.eval_results] == [
        ("accuracy after 2 glimpses", 0.875, "photos"),
        ("accuracy after 1 glimpse", 0.5124, "photos"),
    ]
    assert card.data.to_dict()["model-index"][0]["name"] == "birds"
    for told in (
        "1,234 validation images of photos",
        "| accuracy | 0.512 | 0.875 |",
        "| 25% | 50% |",
        "| 0.0% | 62.5% |",
        "2 classes: `heron`, `робин`",
        'from_pretrained("ada/birds")',
        "glimpsenet pull ada/birds runs/birds",
    ):
        assert told in card.text
    assert "checkpoint was chosen on these images, so the figures are optimistic" in card.text


def test_the_card_quotes_the_images_that_chose_nothing(run):
    summary = json.loads((run.folder / "summary.json").read_text())
    summary["test_metrics"] = {**summary["metrics"], "accuracy": [0.4, 0.75], "num_images": 99}
    (run.folder / "summary.json").write_text(json.dumps(summary))
    card = run.generate_model_card("ada/birds")
    assert "Measured on 99 test images of photos.\n" in card.text
    assert "| accuracy | 0.400 | 0.750 |" in card.text
    assert [(r.metric_value, r.dataset_split) for r in card.data.eval_results] == [(0.75, "test"), (0.4, "test")]


def test_a_run_that_nobody_measured_has_a_card_without_figures(run, tmp_path):
    (run.folder / "summary.json").unlink()
    run.save_pretrained(tmp_path / "shared")
    card = ModelCard.load(tmp_path / "shared" / "README.md")
    assert card.data.eval_results is None
    assert "Not evaluated yet" in card.text
    assert not (tmp_path / "shared" / "summary.json").exists()


def test_the_card_names_the_recipe_whose_model_it_is(run):
    config = glimpsenet.recipe("digits-far")
    made = card.make_card("ada/far", config, ["0"], 1, {}, 1)
    assert "| model of the recipe | `digits-far` |" in made.text
    assert "digit scenes" in made.text
    assert "model of the recipe" not in run.generate_model_card().text


def test_the_card_tells_what_the_backbone_started_from():
    def started(**settings: object) -> str:
        config = glimpsenet.recipe("image-folder")
        config = replace(config, model=replace(config.model, **settings))
        return str(card.make_card("ada/birds", config, ["0"], 3, {}, 1))

    assert "| backbone started from | timm's pretrained weights |" in started()
    assert "| backbone started from | `mine.safetensors` |" in started(backbone_weights=Path("w/mine.safetensors"))
    assert "backbone started from" not in started(pretrained=False)


def test_ones_own_card_goes_before_a_new_one(run, tmp_path):
    (run.folder / "README.md").write_text("mine\n")
    run.save_pretrained(tmp_path / "shared")
    assert (tmp_path / "shared/README.md").read_text() == "mine\n"


def test_a_run_is_not_saved_over_itself(run):
    before = (run.folder / "config.json").read_bytes()
    with pytest.raises(UserError, match="own folder"):
        run.save_pretrained(run.folder)
    assert (run.folder / "config.json").read_bytes() == before


def test_pushed_and_pulled_it_is_the_same(run, hub, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["push", str(run.folder), "ada/birds", "--private"])
    assert "https://hub/ada/birds/commit/1" in capsys.readouterr().out
    assert (hub / "ada/birds.private").read_text() == "True"
    assert "glimpsenet pull ada/birds" in (hub / "ada/birds/README.md").read_text()
    assert_same(Run.from_pretrained("ada/birds"), run)
    main(["pull", "ada/birds", "copy"])
    assert_same(load_run("copy"), run)
    assert {file.name for file in Path("copy").iterdir()} == {file.name for file in (hub / "ada/birds").iterdir()}


def test_pickles_of_strangers_are_not_even_fetched(run, hub):
    run.push_to_hub("ada/birds")
    (hub / "ada/birds/model.safetensors").unlink()
    (hub / "ada/birds/checkpoints").mkdir()
    for name in ("pytorch_model.bin", "model.py", "checkpoints/best.ckpt"):
        (hub / "ada/birds" / name).write_bytes(b"evil")
    with pytest.raises(UserError, match=r"ada/birds on the Hub is no model of glimpsenet: .*no weights"):
        Run.from_pretrained("ada/birds")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["pull", "ada/none", "x"], 1, "no such model on the Hub; if it is private, `hf auth login`"),
        (["pull", "ada/other", "x"], 1, "ada/other on the Hub is no model of glimpsenet: "),
        (["pull", "ada/other", "."], 1, "already exists"),
        (["pull", "ada", "x"], 2, "USER/NAME, not 'ada'"),
        (["push", "runs/birds", "https://hub/ada/birds"], 2, "USER/NAME"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(run, hub, tmp_path, monkeypatch, capsys, arguments, code, told):
    monkeypatch.chdir(tmp_path)
    (hub / "ada/other").mkdir(parents=True)
    (hub / "ada/other/config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    output, error = capsys.readouterr()
    assert (caught.value.code, output, error.count("\n")) == (code, "", 1)
    assert told in error
    assert not (tmp_path / "x").exists()


def test_without_token_and_without_network(run, hub, monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionError("Name or service not known\nand more")

    monkeypatch.setattr("glimpsenet.runs.hub.snapshot_download", unreachable)
    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", unreachable)
    for call in (lambda: Run.from_pretrained("ada/birds"), lambda: run.push_to_hub("ada/birds")):
        with pytest.raises(
            UserError, match=r"cannot reach ada/birds on the Hub.*: Name or service not known and more$"
        ):
            call()
    monkeypatch.setattr("glimpsenet.runs.hub.get_token", lambda: None)
    with pytest.raises(UserError, match=r"not logged in .*hf auth login"):
        run.push_to_hub("ada/birds")


def test_a_name_that_is_none(run):
    with pytest.raises(UserError, match="is no folder here, and no name of a model on the Hub"):
        Run.from_pretrained("no such/folder/at all")


def test_digit_scenes_have_no_folder_to_hide():
    config = Config(data=DigitsConfig())
    assert card.without_folders(config) == config
