import errno
import json
from functools import partial
from pathlib import Path

import pytest
import safetensors.torch
import torch

from glimpsenet.config import VERSION, Config
from glimpsenet.data.config import DigitsConfig, FolderConfig
from glimpsenet.errors import UserError
from glimpsenet.models.config import MipmapConfig, ModelConfig
from glimpsenet.runs import (
    Description,
    OutdatedRunError,
    load,
    load_run,
    read_description,
    save_weights,
    write_description,
)

MODEL = ModelConfig(
    backbone="glimpse_cnn",
    num_glimpses=2,
    image_size=20,
    glimpse_size=8,
    sampling=MipmapConfig(),
    batch_norm="separate",
)
DESCRIPTION = Description(Config(model=MODEL, data=DigitsConfig()), ["one", "zwei", "три"], 1)


close = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-4)


def answer(model: torch.nn.Module) -> torch.Tensor:
    images = torch.rand(3, 1, 20, 20, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return model.eval()(images).logits


def make_run(folder: Path) -> torch.Tensor:
    """A run folder with new weights; what its model answers."""
    write_description(folder, DESCRIPTION)
    model = DESCRIPTION.build()
    for module in model.modules():  # statistics as if it had been trained
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
    save_weights(model, folder)
    return answer(model)


@pytest.mark.parametrize(
    "description",
    [
        DESCRIPTION,
        Description(Config(data=FolderConfig(data=Path("photos/été"), skip_bad=True), seed=7), ["a", "b"], 3),
        Description(Config(model=ModelConfig(backbone_weights=Path("w.pt"), scale_range=(0.1, 1.0))), ["a"], 3),
    ],
)
def test_descriptions_are_read_back_as_written(tmp_path, description):
    write_description(tmp_path, description)
    assert read_description(tmp_path) == description
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize("version", [None, 1, 99, "new"])
def test_another_format_is_refused_naming_both_versions(tmp_path, version):
    write_description(tmp_path, DESCRIPTION)
    values = json.loads((tmp_path / "config.json").read_text()) | {"version": version}
    if version is None:
        del values["version"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(OutdatedRunError, match=f"has format version {version or 1}, but .* reads {VERSION}"):
        read_description(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("classes", [], "'classes'"),
        ("classes", "abc", "'classes'"),
        ("classes", [1, 2], "'classes'"),
        ("channels", 2, "'channels' is 2"),
        ("channels", None, "'channels'"),
        ("config", {"seed": "x"}, "seed"),
        ("config", None, "bad configuration"),
    ],
)
def test_damaged_descriptions_are_told_in_one_line(tmp_path, key, value, told):
    write_description(tmp_path, DESCRIPTION)
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**values, key: value}))
    with pytest.raises(UserError, match=told) as caught:
        read_description(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'config.json'} is damaged: ")
    assert "\n" not in str(caught.value)
    del values[key]
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=key):
        read_description(tmp_path)


def test_a_loaded_model_answers_as_the_saved_one(tmp_path):
    expected = make_run(tmp_path)
    run = load_run(tmp_path)
    assert not run.model.training
    assert (run.config, run.classes, run.channels, run.folder) == (DESCRIPTION.config, DESCRIPTION.classes, 1, tmp_path)
    close(answer(run.model), expected)  # other kernels: loaded models are channels last
    close(answer(load(str(tmp_path))), expected)


def test_parameters_that_two_networks_share_are_still_shared_after_loading(tmp_path):
    make_run(tmp_path)
    backbone = load(tmp_path).backbone
    one, other = (dict(net.named_parameters()) for net in (backbone.net, backbone.first_glimpse_net))
    convolutions = [name for name, parameter in one.items() if parameter.dim() == 4]
    assert convolutions
    assert all(one[name] is other[name] for name in convolutions)
    assert not any(one[name] is other[name] for name in one if name not in convolutions)


def test_the_finished_models_weights_go_before_the_best_checkpoint_and_that_before_the_last(tmp_path):
    finished = make_run(tmp_path)
    answers = {}
    (tmp_path / "checkpoints").mkdir()
    for name in ("last", "best"):
        model = DESCRIPTION.build()
        state = {f"model.{key}": value for key, value in model.state_dict().items()}
        torch.save({"state_dict": state}, tmp_path / f"checkpoints/{name}.ckpt")
        answers[name] = answer(model)
    close(answer(load(tmp_path)), finished)
    (tmp_path / "model.safetensors").unlink()
    close(answer(load(tmp_path)), answers["best"])
    (tmp_path / "checkpoints/best.ckpt").unlink()
    close(answer(load(tmp_path)), answers["last"])
    (tmp_path / "checkpoints/last.ckpt").unlink()
    with pytest.raises(UserError, match="no weights: no checkpoint saved yet"):
        load(tmp_path)


def test_loading_needs_neither_the_internet_nor_the_first_weights(tmp_path):
    """The run starts from files that are gone when it is used elsewhere."""
    config = Config(model=ModelConfig(backbone="glimpse_cnn", pretrained=True, backbone_weights=Path("gone.pt")))
    description = Description(config, ["a", "b"], 3)
    write_description(tmp_path, description)
    save_weights(description.build(initial_weights=False), tmp_path)
    assert load_run(tmp_path).config.model.backbone_weights == Path("gone.pt")


def test_a_full_disk_leaves_the_old_weights(tmp_path, monkeypatch):
    make_run(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def write(model, name):
        Path(name).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_model", write)
    with pytest.raises((UserError, OSError), match="No space left"):
        save_weights(DESCRIPTION.build(), tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_whoever_may_read_the_configuration_may_read_the_weights(tmp_path):
    make_run(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "config.json").stat().st_mode


def test_a_misspelt_run_folder_is_told_with_those_that_there_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no such run folder: nowhere; glimpsenet train makes one"):
        read_description(Path("nowhere"))
    for name in ("demo", "signs"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        write_description(tmp_path / "runs" / name, DESCRIPTION)
    for misspelt in ("runs/demos", "demo"):
        with pytest.raises(UserError, match=f"{misspelt}; did you mean 'runs/demo'\\?"):
            read_description(Path(misspelt))
    with pytest.raises(UserError, match="nowhere; there are runs/demo, runs/signs"):
        read_description(Path("nowhere"))
