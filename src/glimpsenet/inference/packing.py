"""Convolutions whose weights lie as oneDNN's kernels read them.

oneDNN computes a convolution on weights in blocks of a layout of its own, and reorders them at every call. With one
small image that takes longer than the convolution, so PyTorch then takes a slow path that needs no reordering
(``aten/src/ATen/native/Convolution.cpp``, ``use_mkldnn``). Weights that no longer change are reordered once.

Source: the same is done by torch.compile's ``freezing``, for fixed batch sizes only.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


class PackedConv2d(nn.Conv2d):
    """A convolution for inference on the CPU; where gradients or autocast need the plain one, it is the plain one."""

    def __init__(self, plain: nn.Conv2d):
        super().__init__(
            plain.in_channels,
            plain.out_channels,
            plain.kernel_size,  # pyright: ignore[reportArgumentType]
            plain.stride,  # pyright: ignore[reportArgumentType]
            plain.padding,  # pyright: ignore[reportArgumentType]
            plain.dilation,  # pyright: ignore[reportArgumentType]
            plain.groups,
            plain.bias is not None,
            device="meta",
        )
        self.weight, self.bias = plain.weight, plain.bias
        self.packed: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        """A copy packs its weights itself: packed ones cannot be copied."""
        return {**self.__dict__, "packed": None}

    def forward(
        self, input: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch channel_ height_ width_"]:
        """The convolution."""
        learning = torch.is_grad_enabled() and (input.requires_grad or self.weight.requires_grad)
        if learning or torch.is_autocast_enabled(input.device.type) or len(input) == 0:
            return super().forward(input)
        if self.packed is None:
            self.packed = torch.ops.aten.mkldnn_reorder_conv2d_weight(
                self.weight.to_mkldnn(), self.padding, self.stride, self.dilation, self.groups, input.shape
            )
        return torch.ops.mkldnn._convolution_pointwise(
            input, self.packed, self.bias, self.padding, self.stride, self.dilation, self.groups, "none", [], ""
        )


def pack_convolutions(net: nn.Module) -> int:
    """Replace the convolutions of a network in place, those of exact type ``nn.Conv2d``; how many there were."""
    if not torch.backends.mkldnn.is_available():
        return 0
    packed = 0
    for name, module in list(net.named_modules()):
        if type(module) is nn.Conv2d and _can_be_packed(module):
            net.set_submodule(name, PackedConv2d(module))
            packed += 1
    return packed


def _can_be_packed(plain: nn.Conv2d) -> bool:
    weight = plain.weight
    return (
        (weight.device.type, weight.dtype) == ("cpu", torch.float32)
        and plain.padding_mode == "zeros"
        and not isinstance(plain.padding, str)
    )
