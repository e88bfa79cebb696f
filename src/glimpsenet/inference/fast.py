"""The same function in less time: what a trained model can leave out, fold together, or compile.

    BN(W * x + b) = (gamma / sigma) W * x + (gamma / sigma) (b - mu) + beta

A batch normalisation that no longer learns scales and shifts channels by constants, so it becomes part of the
convolution before it. Convolutions run fastest with channels last, and on the CPU with weights laid out beforehand
(``packing.py``). The auxiliary classifier serves training only.
"""

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.norm_act import BatchNormAct2d
from torch import nn
from torch.fx import Tracer
from torch.nn.utils.fusion import fuse_conv_bn_eval

from glimpsenet.inference.packing import pack_convolutions
from glimpsenet.models.glimpsenet import GlimpseNet

CONVOLUTIONS, NORMS = (nn.Conv2d, Conv2dSame), (nn.BatchNorm2d, BatchNormAct2d)
"""What is folded. By exact type: a subclass may do more, such as standardise its weights."""


def accelerate(model: GlimpseNet, *, compiled: bool = False) -> GlimpseNet:
    """A copy for inference that computes the same, to rounding: in evaluation mode, without unused auxiliary logits.

    Args:
        model: is left as it is.
        compiled: compile each glimpse with ``torch.compile``, for any batch size. The first calls take a minute or
            more; a C++ compiler (CPU) or Triton (GPU) is needed.

    Example:
        >>> model = glimpsenet.accelerate(glimpsenet.load("runs/digits"))
        >>> model(model.normalization(torch.rand(2, 1, 80, 80))).logits.shape
        torch.Size([2, 4, 10])
    """
    fast = fold(model)
    if compiled:
        fast.compiled_glimpse = compile_glimpse(fast)
    else:
        pack_convolutions(fast.backbone)
    return fast


def fold(model: GlimpseNet) -> GlimpseNet:
    """The part of :func:`accelerate` that is plain PyTorch, which tracing needs."""
    folded = copy.deepcopy(model).eval().requires_grad_(False)
    if not folded.glimpse_ensemble:
        folded.auxiliary_classifier = None
    for net in filter(None, (folded.backbone.net, folded.backbone.first_glimpse_net)):
        fold_batch_norms(net)
    return folded.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def fold_batch_norms(net: nn.Module) -> int:
    """Make every batch normalisation that alone reads a convolution part of it, in place; how many there were.

    A network whose code depends on its input cannot be traced, and stays as it is.
    """
    try:
        nodes = _LayerTracer().trace(net.eval()).nodes
    except Exception:  # tracing fails in as many ways as there are networks
        return 0
    calls = Counter(node.target for node in nodes if node.op == "call_module")
    folded = 0
    for node in nodes:
        before = node.args[0] if node.args else None
        if not isinstance(before, torch.fx.Node) or (node.op, before.op) != ("call_module", "call_module"):
            continue
        names = str(before.target), str(node.target)
        convolution, norm = (net.get_submodule(name) for name in names)
        if type(convolution) not in CONVOLUTIONS or type(norm) not in NORMS:
            continue
        if len(before.users) > 1 or any(calls[name] > 1 for name in names):
            continue
        net.set_submodule(names[0], fuse_conv_bn_eval(convolution, norm))  # pyright: ignore[reportArgumentType]
        net.set_submodule(names[1], getattr(norm, "act", nn.Identity()))  # timm's norms may hold an activation
        folded += 1
    return folded


class _LayerTracer(Tracer):
    """Sees convolutions and normalisations as one node each."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, CONVOLUTIONS + NORMS) or super().is_leaf_module(m, module_qualified_name)


def compile_glimpse(model: GlimpseNet) -> Callable[..., Any]:
    """``model.take_glimpse``, compiled whole."""
    # A graph for each glimpse and range of batch sizes (1, few, many); torch stops at 8, those of all models together.
    torch._dynamo.config.recompile_limit += 4 * model.num_glimpses
    options = inductor_options(model.classifier.weight.device)
    return torch.compile(model.take_glimpse, fullgraph=True, dynamic=True, options=options)


def inductor_options(device: torch.device) -> dict[str, Any] | None:
    """For inference: on a CPU, weights are constants, laid out beforehand as its kernels want them."""
    return {"freezing": True} if device.type == "cpu" else None
