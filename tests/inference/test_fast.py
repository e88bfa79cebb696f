"""Fast paths against the plain one: the same numbers, to rounding."""

import copy
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from timm.layers.std_conv import StdConv2d
from torch import nn

from glimpsenet import create_model
from glimpsenet.inference.fast import accelerate, fold_batch_norms
from glimpsenet.inference.packing import PackedConv2d, pack_convolutions
from glimpsenet.models.backbone import create_backbone_net
from glimpsenet.models.config import MipmapConfig
from glimpsenet.policies.config import TokenConfig


def with_statistics(module: nn.Module) -> nn.Module:
    """Batch normalisation that does something, as after training."""
    torch.manual_seed(1)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.running_mean, std=0.2)
            nn.init.uniform_(norm.running_var, 0.5, 2)
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.2)
    return module.eval()


def count_norms(module: nn.Module) -> int:
    return sum(isinstance(part, nn.BatchNorm2d) for part in module.modules())


@pytest.mark.parametrize(
    ("backbone", "left"),
    [("glimpse_cnn", 0), ("resnet18", 0), ("tf_efficientnet_lite0", 0), ("densenet121", 62), ("convnext_atto", 0)],
)
def test_folded_networks_compute_the_same(backbone, left):
    torch.manual_seed(0)
    net = with_statistics(create_backbone_net(backbone, num_classes=7))
    plain, before = copy.deepcopy(net), count_norms(net)
    assert fold_batch_norms(net) == before - left
    assert count_norms(net) == left
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(net(images), plain(images), atol=1e-4, rtol=1e-3)
        features, expected = (n.forward_intermediates(images, indices=[-1]) for n in (net, plain))
        torch.testing.assert_close(features, expected, atol=1e-4, rtol=1e-3)


def test_what_cannot_be_folded_stays():
    class Untraceable(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution, self.norm = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)

        def forward(self, x):
            return self.norm(self.convolution(x)) if x.sum() > 0 else x

    shared = nn.Sequential(convolution := nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), convolution, nn.BatchNorm2d(2))
    standardised = nn.Sequential(StdConv2d(1, 2, 3), nn.BatchNorm2d(2))
    for net in (Untraceable(), shared, standardised):
        assert fold_batch_norms(net.eval()) == 0
        assert count_norms(net) > 0


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_norm": "separate", "sampling": MipmapConfig()},
        {"policy": TokenConfig()},
        {"policy": TokenConfig(), "glimpse_ensemble": True},
    ],
)
def test_an_accelerated_model_computes_the_same_and_leaves_the_model_alone(settings):
    torch.manual_seed(0)
    model = create_model("glimpse_cnn", num_classes=5, in_channels=1, image_size=40, glimpse_size=12, **settings)
    with_statistics(model)
    before = copy.deepcopy(model.state_dict())
    fast = accelerate(model)
    images = F.interpolate(torch.rand(4, 1, 6, 6), size=40, mode="bilinear")
    with torch.inference_mode():
        expected, output = model(images), fast(images)
    torch.testing.assert_close(output.logits, expected.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(output.windows, expected.windows, atol=1e-4, rtol=1e-4)
    assert (output.auxiliary_logits is not None) == ("glimpse_ensemble" in settings)
    assert expected.auxiliary_logits is not None
    assert count_norms(fast) == 0
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    "plain",
    [
        nn.Conv2d(3, 8, 7, 2, 3, bias=False),
        nn.Conv2d(8, 8, 3, padding=2, dilation=2),
        nn.Conv2d(8, 8, 3, 2, 1, groups=8),
        nn.Conv2d(8, 16, 1),
    ],
)
def test_packed_convolutions_compute_the_same_for_any_batch_and_size(plain):
    torch.manual_seed(0)
    packed = PackedConv2d(copy.deepcopy(plain).requires_grad_(False))
    with torch.inference_mode():
        for shape in ((1, 9, 9), (5, 9, 9), (2, 16, 12)):
            for layout in (torch.contiguous_format, torch.channels_last):
                x = torch.randn(shape[0], plain.in_channels, *shape[1:]).to(memory_format=layout)
                torch.testing.assert_close(packed(x), plain(x), atol=1e-5, rtol=1e-5)
    assert packed.packed is not None
    with torch.inference_mode():
        torch.testing.assert_close(copy.deepcopy(packed)(x), plain(x), atol=1e-5, rtol=1e-5)
    x = x.clone().requires_grad_()  # asked for gradients, it is the plain one
    (expected,), (gradient,) = (torch.autograd.grad(c(x).square().sum(), x) for c in (plain, packed))
    torch.testing.assert_close(gradient, expected)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert packed(x).dtype == torch.bfloat16


def test_what_cannot_be_packed_stays():
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding="same"), nn.Conv2d(2, 2, 3, padding_mode="reflect", padding=1))
    assert pack_convolutions(net.append(StdConv2d(2, 2, 3)).append(nn.Conv2d(2, 2, 3).double())) == 0
    assert pack_convolutions(net.append(nn.Conv2d(2, 2, 3))) == 1


COMPILED = """
import sys, torch
from glimpsenet import create_model
from glimpsenet.inference import Predictor, accelerate
from glimpsenet.inference.fast import fold
torch.set_num_threads(1)
torch.manual_seed(0)
backend, glimpses, *policies = sys.argv[1:]
for policy in policies:
    model = create_model("glimpse_cnn", num_classes=3, in_channels=1, image_size=24, glimpse_size=8,
                         num_glimpses=int(glimpses), policy=policy, sampling="mipmap").eval()
    if policy == "tokens":
        torch.nn.init.normal_(model.policy.score.weight)
    if backend == "inductor":
        fast = accelerate(model, compiled=True)
    else:
        fast = fold(model)
        # A graph break is an error.
        fast.compiled_glimpse = torch.compile(fast.take_glimpse, fullgraph=True, dynamic=True, backend=backend)
    for batch in (5, 3):
        images = torch.nn.functional.interpolate(torch.rand(batch, 1, 4, 4), size=24, mode="bilinear")
        expected, output = Predictor(model)(images), Predictor(fast)(images)
        torch.testing.assert_close(output.glimpse_logits, expected.glimpse_logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(output.windows, expected.windows, atol=1e-4, rtol=1e-4)
"""


@pytest.mark.parametrize("arguments", ["aot_eager 2 linear spatiotemporal tokens", "inductor 1 linear"])
def test_the_step_compiles_without_graph_breaks(arguments):
    """In a process of its own: the shape checks of these tests would be compiled too. Inductor takes long."""
    command = [sys.executable, "-c", COMPILED, *arguments.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
