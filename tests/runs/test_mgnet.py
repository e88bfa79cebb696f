"""MGNet's function is written here a second time, from the paper, in plain torch; both must agree."""

import argparse
import os
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from glimpsenet.cli import main
from glimpsenet.errors import UserError
from glimpsenet.losses import glimpse_loss
from glimpsenet.models.config import MGNetConfig
from glimpsenet.runs import load_run
from glimpsenet.runs.mgnet import import_mgnet, load_mgnet, read_mgnet

STEPS, SIZE, CLASSES, WIDTH = 4, 64, 7, 512
SCALES = (0.2, 0.5)
SETTINGS: dict[str, Any] = {"image_size": SIZE, "num_glimpses": STEPS, "scale_range": SCALES}


class Reference(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = torchvision.models.resnet18()
        self.backbone.fc = nn.Identity()
        self.feat_fusion = nn.ModuleDict(
            {"mha": nn.MultiheadAttention(WIDTH + 3, 1), "norm": nn.LayerNorm(WIDTH + 3)},
        )
        self.loc_network = nn.ModuleDict({"fc": nn.Linear(WIDTH + 3, 3)})
        self.global_fc = nn.ModuleDict({"fc": nn.Linear(WIDTH + 3, CLASSES)})
        self.glimpse_fc = nn.ModuleDict({"fc": nn.Linear(WIDTH, CLASSES)})

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits and affine parameters of every step, auxiliary logits of all but the first; step first."""
        s, t = images.new_ones(len(images), 1), images.new_zeros(len(images), 2)
        tokens, logits, windows, auxiliary = [], [], [], []
        for _ in range(STEPS):
            windows.append(torch.cat([s, t], 1).to(images))
            matrix = torch.cat([torch.diag_embed(windows[-1][:, :1].expand(-1, 2)), windows[-1][:, 1:, None]], 2)
            grid = F.affine_grid(matrix, [len(images), 3, int(SIZE // 2.33), int(SIZE // 2.33)], align_corners=True)
            features = self.backbone(F.grid_sample(images, grid, align_corners=True))
            auxiliary.append(self.glimpse_fc["fc"](features))
            tokens.append(torch.cat([features, windows[-1].detach()], 1))
            sequence = torch.stack(tokens)
            attended, _ = self.feat_fusion["mha"](sequence, sequence, sequence)
            fused = self.feat_fusion["norm"](attended)[-1].relu()
            logits.append(self.global_fc["fc"](fused))
            where = self.loc_network["fc"](fused).sigmoid()
            if where.requires_grad:
                where.register_hook(lambda gradient: 0.02 * gradient)
            s = SCALES[0] + (SCALES[1] - SCALES[0]) * where[:, :1]
            t = (2 * where[:, 1:] - 1) * (1 - s)
        return torch.stack(logits), torch.stack(windows), torch.stack(auxiliary[1:])


class Callback:
    pass


class Code:
    """Runs when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def make_reference() -> Reference:
    torch.manual_seed(0)
    reference = Reference()
    with torch.no_grad():
        for name, tensor in reference.state_dict().items():
            if "running_var" in name or (tensor.dim() == 1 and name.endswith("weight")):
                tensor.uniform_(0.5, 1.5)
            elif tensor.dim() == 1:  # biases, running means
                tensor.normal_(std=0.2)
        reference.loc_network["fc"].weight.normal_(std=0.1)  # windows that differ from image to image
    return reference


def make_checkpoint(weights: dict[str, Tensor], **more: Any) -> dict[str, Any]:
    """As PyTorch Lightning writes it."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1, momentum=0.9)
    state = OrderedDict((f"model.{name}", tensor) for name, tensor in weights.items())
    return {
        "epoch": 3,
        "hyper_parameters": {"hparams": argparse.Namespace(n_iter=4), "callback": Callback()},
        "callbacks": {Callback: {"best_model_score": torch.tensor(0.8), "mode": "max"}},
        "lr_schedulers": [torch.optim.lr_scheduler.LambdaLR(optimizer, abs), {1, 2}],
        "optimizer_states": [optimizer.state_dict()],
        "state_dict": state | {"train_acc.correct": torch.tensor(5), "val_acc.total": torch.tensor(9)},
        **more,
    }


def hollow(module: nn.Module) -> dict[str, Tensor]:
    """Its tensors' names and shapes in a file of a few kilobytes: zeros without a storage of their own."""
    return {name: torch.zeros(()).expand(tensor.shape) for name, tensor in module.state_dict().items()}


@pytest.fixture(scope="module")
def shapes() -> dict[str, Tensor]:
    with torch.device("meta"):
        reference = Reference()
    return hollow(reference)


def save(content: Any, folder: Path, **settings: Any) -> Path:
    torch.save(content, folder / "mgnet.ckpt", **settings)
    return folder / "mgnet.ckpt"


def refused(path: Path, **settings: Any) -> str:
    with pytest.raises(UserError) as caught:
        load_mgnet(path, **SETTINGS, **settings)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def make_images(count: int) -> Tensor:
    """Smooth ones, different from each other."""
    return F.interpolate(2 * torch.randn(count, 3, 8, 8), size=SIZE, mode="bilinear")


@torch.no_grad()
def distance(a: Any, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_evaluation_agrees_with_mgnet_at_every_step(tmp_path):
    reference, images = make_reference().eval(), make_images(4)
    path = save(make_checkpoint(reference.state_dict()), tmp_path)
    model = load_mgnet(path, **SETTINGS)
    assert not model.training
    with torch.no_grad():
        logits, windows, auxiliary = (value.transpose(0, 1) for value in reference(images))
        output = model(images)
    assert windows[:, 1:].std(0).min() > 0.003, "windows should differ between images"
    torch.testing.assert_close(output.windows, windows, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(output.logits, logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(output.auxiliary_logits, auxiliary, rtol=1e-4, atol=1e-4)


def test_a_training_step_agrees_with_mgnet(tmp_path):
    # In float64: batch normalisation over so few values would blow rounding up.
    reference, labels = make_reference().double(), torch.arange(4)
    images = make_images(4).double()
    model = load_mgnet(save(reference.state_dict(), tmp_path), **SETTINGS).double().train()
    logits, _, auxiliary = reference(images)
    main, side = (torch.stack([F.cross_entropy(step, labels) for step in steps]) for steps in (logits, auxiliary))
    expected = 0.4 * main.mean() + 0.6 * side.mean()
    expected.backward()
    loss = glimpse_loss(model(images), labels, 0.6).total
    loss.backward()
    assert distance(loss, expected) < 1e-12
    for ours, theirs in {
        "policy.fc.weight": "loc_network.fc.weight",
        "policy.fc.bias": "loc_network.fc.bias",
        "backbone.net.conv1.weight": "backbone.conv1.weight",
        "fusion.attention.in_proj_weight": "feat_fusion.mha.in_proj_weight",
        "auxiliary_classifier.weight": "glimpse_fc.fc.weight",
    }.items():
        gradient = reference.get_parameter(theirs).grad
        assert gradient is not None
        assert gradient.norm() > 1e-3
        assert distance(model.get_parameter(ours).grad, gradient) < 1e-10, ours
    # All steps went through the same batch normalisation.
    statistics = model.get_submodule("backbone.net.layer4.1.bn2")
    assert distance(statistics.running_var, reference.backbone.layer4[1].bn2.running_var) < 1e-12
    assert statistics.num_batches_tracked == STEPS


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (os.system, lambda place: [f"mkdir {place}"]),
        (eval, lambda place: [f"__import__('os').mkdir({str(place)!r})"]),
        (os.mkdir, lambda place: [str(place)]),
    ],
    ids=["os.system", "eval", "os.mkdir"],
)
def test_no_code_of_the_file_is_run(tmp_path, shapes, function, arguments):
    place = tmp_path / "ran"
    code = Code(function, *arguments(place))
    path = save(make_checkpoint(shapes, callbacks={Callback: code, "list": [code]}), tmp_path)
    assert load_mgnet(path, **SETTINGS).num_classes == CLASSES
    assert not place.exists()
    path = save(make_checkpoint({**shapes, "global_fc.fc.weight": code}), tmp_path)  # pyright: ignore
    assert "'model.global_fc.fc.weight' is no tensor" in refused(path)
    path = save(make_checkpoint({**shapes, "global_fc.fc.bias": nn.Parameter(torch.ones(CLASSES))}), tmp_path)
    assert load_mgnet(path, **SETTINGS).classifier.bias.detach().eq(1).all()
    assert not place.exists()
    # The trap itself works.
    save([code], tmp_path)
    torch.load(path, weights_only=False)
    assert place.exists()


def test_no_function_can_be_altered(tmp_path, shapes):
    # Objects whose state pickle sets on a function, as if it were what a call has made.
    path = save(make_checkpoint(shapes), tmp_path)
    poison = b"ctorch._utils\n_rebuild_tensor_v2\n}X\x03\x00\x00\x00badK\x01sb0"  # GLOBAL, BUILD {"bad": 1}, POP
    poison += b"ccollections\nOrderedDict\n)R}X\x03\x00\x00\x00getK\x01sb0"  # the same on an OrderedDict
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(tmp_path / "altered.ckpt", "w") as altered:
        for name in archive.namelist():
            content = archive.read(name)
            altered.writestr(name, content[:2] + poison + content[2:] if name.endswith("data.pkl") else content)
    assert load_mgnet(tmp_path / "altered.ckpt", **SETTINGS).num_classes == CLASSES
    assert not hasattr(torch._utils._rebuild_tensor_v2, "bad")


def test_metrics_are_ignored_and_told(tmp_path, shapes, caplog):
    caplog.set_level("INFO")
    weights = read_mgnet(save(make_checkpoint(shapes), tmp_path))
    assert weights.ignored == ["train_acc.correct", "val_acc.total"]
    assert "train_acc.correct, val_acc.total" in caplog.text
    assert weights.tensors.keys() == shapes.keys()


@pytest.mark.parametrize("legacy", [False, True])
def test_a_plain_state_dict_without_auxiliary_classifier(tmp_path, shapes, legacy):
    weights = {name: tensor for name, tensor in shapes.items() if not name.startswith("glimpse_fc.")}
    path = save(weights, tmp_path, _use_new_zipfile_serialization=not legacy)
    model = load_mgnet(path, **SETTINGS).train()
    assert model(torch.zeros(2, 3, SIZE, SIZE)).auxiliary_logits is None


def test_other_weights_are_refused_in_one_line(tmp_path, shapes):
    def message(weights: dict[str, Any], **settings: Any) -> str:
        return refused(save(make_checkpoint(weights), tmp_path), **settings)

    assert "1 missing (first: backbone.bn1.bias)" in message(
        {k: v for k, v in shapes.items() if k != "backbone.bn1.bias"}
    )
    assert "1 unknown (first: backbone.fc.bias)" in message({**shapes, "backbone.fc.bias": torch.zeros(1)})
    assert "1 of another shape (first: loc_network.fc.weight)" in message(
        {**shapes, "loc_network.fc.weight": torch.zeros(3, WIDTH)}
    )
    with torch.device("meta"):
        other = torchvision.models.resnet50()
    others = {f"backbone.{name}": tensor for name, tensor in hollow(other).items()}
    assert "backbone 'resnet18'" in message({k: v for k, v in shapes.items() if "backbone" not in k} | others)
    assert "there is no matrix global_fc.fc.weight" in refused(save(hollow(other), tmp_path))


def test_other_files_are_refused_in_one_line(tmp_path, shapes):
    path = save([1, 2], tmp_path)
    assert "no checkpoint" in refused(path)
    assert "no state_dict" in refused(save({1: torch.zeros(1)}, tmp_path))
    content = save(make_checkpoint(shapes), tmp_path).read_bytes()
    for damaged in (content[: len(content) // 2], content[:100], b"PK\x03\x04", b"", b"no checkpoint at all\n" * 99):
        path.write_bytes(damaged)
        assert "cannot read weights" in refused(path)
    save(make_checkpoint(shapes), tmp_path, _use_new_zipfile_serialization=False)
    assert "torch before 1.6" in refused(path)
    save(make_checkpoint(shapes), tmp_path)
    with zipfile.ZipFile(path, "a") as archive:  # what tells TorchScript, whose archives are programs
        archive.writestr("mgnet/constants.pkl", b"")
    assert "TorchScript" in refused(path)
    path.unlink()
    assert "no such file" in refused(path)


def test_import_makes_a_run_folder(tmp_path):
    path, folder = save(make_checkpoint(make_reference().state_dict()), tmp_path), tmp_path / "runs/mgnet"
    with pytest.raises(UserError, match="has 7 classes; 2 names"):
        import_mgnet(path, folder, MGNetConfig(**SETTINGS), classes=["a", "b"])
    assert import_mgnet(path, folder, MGNetConfig(**SETTINGS)) == ["train_acc.correct", "val_acc.total"]
    run, images = load_run(folder), torch.randn(2, 3, SIZE, SIZE)
    assert run.classes == list("0123456")
    # Runs are loaded with channels last, which rounds differently.
    torch.testing.assert_close(
        run.model(images).logits, load_mgnet(path, **SETTINGS)(images).logits, atol=2e-4, rtol=1e-3
    )
    with pytest.raises(UserError, match="not an empty folder"):
        import_mgnet(path, folder, MGNetConfig(**SETTINGS))


def test_import_names_the_classes_in_the_order_mgnet_was_trained_with(tmp_path, capsys):
    path = save(make_checkpoint(make_reference().state_dict()), tmp_path)
    names = ["b", "10", "2", "1", ".DS_Store", "@eaDir", "a", "d", "c"]
    for name in names:
        (tmp_path / "data/val" / name).mkdir(parents=True)
    flags = ["--image-size", str(SIZE), "--data", str(tmp_path / "data")]
    main(["import-mgnet", str(path), str(tmp_path / "run"), *flags])
    assert load_run(tmp_path / "run").classes == ["1", "10", "2", "a", "b", "c", "d"]
    told = "glimpsenet: warning: left out 2 hidden or junk entries (.DS_Store 1, @eaDir 1) in "
    assert capsys.readouterr().err == f"{told}{tmp_path / 'data/val'}\n"


def test_glimpse_size_is_the_papers():
    assert MGNetConfig().model().glimpse_size == 96
    with pytest.raises(UserError, match="scale_factor"):
        MGNetConfig(scale_factor=0).model()
