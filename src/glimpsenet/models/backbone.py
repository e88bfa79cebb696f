"""Backbone: glimpse -> (f_t, feature maps), one network for all glimpses.

    maps = stages(glimpse),   f_t = mean over locations of the last map (or whatever the model's own head pools)

Any timm model by name, or ``glimpse_cnn`` (below), which this project adds to timm's registry. The first glimpse and
the windows share batch normalisation statistics, as in MGNet, or have separate ones. If shared, training normalises
each call by its own statistics, but evaluation uses one running average of both, which differ: the first glimpse, one
call of T, suffers most. Separate statistics for each kind of input are the remedy of Xie et al. (2020, AdvProp).
"""

import copy
import difflib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import timm
import timm.models.resnet
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from jaxtyping import Float
from timm.data.config import resolve_data_config
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from glimpsenet.errors import DamagedError, PretrainedWeightsError, UserError, first_line


class Features(NamedTuple):
    """The backbone's output for one glimpse of each image."""

    pooled: Float[Tensor, "batch channel"]
    maps: list[Float[Tensor, "batch _ _ _"]]
    """The feature maps of the requested layers."""


class GlimpseCNN(nn.Module):
    """A small network for small glimpses: three stages of two 3 x 3 convolutions, strides 1, 2, 2.

    112 thousand parameters with the default widths; implements timm's interface.
    """

    def __init__(self, in_chans: int = 3, num_classes: int = 0, widths: Sequence[int] = (24, 48, 64), **_: Any):
        super().__init__()
        stages = []
        for width, stride in zip(widths, (1, 2, 2), strict=True):
            stages.append(
                nn.Sequential(
                    nn.Conv2d(in_chans, width, 3, stride, 1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(),
                    nn.Conv2d(width, width, 3, 1, 1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(),
                )
            )
            in_chans = width
        self.stages = nn.ModuleList(stages)
        self.num_features = self.head_hidden_size = in_chans
        self.feature_info = [{"num_chs": width, "module": f"stages.{stage}"} for stage, width in enumerate(widths)]
        self.fc = nn.Linear(in_chans, num_classes) if num_classes else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward_intermediates(self, x: Tensor, indices: Sequence[int] | None = None) -> tuple[Tensor, list[Tensor]]:
        """timm's interface: the last map, and the maps of the stages ``indices`` (all if None)."""
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return x, maps if indices is None else [maps[index] for index in indices]

    def forward_features(self, x: Tensor) -> Tensor:
        """timm's interface: the last map."""
        return self.forward_intermediates(x, [])[0]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """timm's interface: pooled features, or logits."""
        pooled = x.mean((2, 3))
        return pooled if pre_logits else self.fc(pooled)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a plain classifier."""
        return self.forward_head(self.forward_features(x))


@timm.models.register_model
def glimpse_cnn(pretrained: bool = False, **settings: Any) -> GlimpseCNN:
    """See :class:`GlimpseCNN`; no pretrained weights exist."""
    if pretrained:
        raise PretrainedWeightsError(
            "glimpse_cnn has no pretrained weights; train it from scratch, or set backbone_weights to a file"
        )
    net = GlimpseCNN(**{key: value for key, value in settings.items() if not key.startswith("pretrained_cfg")})
    net.pretrained_cfg = {"mean": (0.0,), "std": (1.0,), "classifier": "fc"}  # pyright: ignore
    return net


class Normalization(nn.Module):
    """(image - mean) / std per channel, as in the backbone's training; takes uint8 (0..255) or float (0..1) images."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Float[Tensor, "batch channel size size"]:
        """Raw images ``[batch, channel, size, size]`` -> normalised images."""
        if images.dtype == torch.uint8:
            images = images.float() / 255
        return (images - self.mean) / self.std


class Backbone(nn.Module):
    """A timm model without its classifier.

    Args:
        net: the model, with timm's ``forward_intermediates`` and ``forward_head``.
        separate_norms: give first glimpses their own batch normalisation layers.
        layers: indices of timm's feature maps to return; negative ones count from the last.
        frozen: train only from the last stage on; earlier stages keep their weights and statistics.

    Raises:
        ValueError: if the model lacks a layer.
    """

    def __init__(
        self, net: nn.Module, *, separate_norms: bool = False, layers: Sequence[int] = (), frozen: bool = False
    ):
        super().__init__()
        self.net: Any = net
        self.first_glimpse_net: Any = _with_own_norms(net) if separate_norms and _has_batch_norm(net) else None
        self.layers: list[int] = list(layers)
        self.frozen = frozen
        for layer in layers:
            feature_info(net, layer)
        if frozen:
            for module in self._early_modules():
                for parameter in module.parameters(recurse=False):
                    parameter.requires_grad_(False)

    def _early_modules(self) -> Iterator[nn.Module]:
        """All modules before the last stage."""
        for net in filter(None, (self.net, self.first_glimpse_net)):
            last = feature_info(net, -1)["module"]
            for name, module in net.named_modules():
                if name == last:
                    break
                yield module

    def train(self, mode: bool = True) -> "Backbone":
        """Frozen batch normalisation stays in evaluation mode: its statistics are frozen too."""
        super().train(mode)
        if self.frozen:
            for module in self._early_modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    @property
    def name(self) -> str:
        """timm's name of the architecture; for other networks, the class name."""
        configuration = getattr(self.net, "pretrained_cfg", None) or {}
        return configuration.get("architecture") or type(self.net).__name__

    @property
    def channels(self) -> int:
        """Width of the pooled features."""
        return int(self.net.head_hidden_size)

    @property
    def map_channels(self) -> list[int]:
        """Widths of the feature maps."""
        return [int(feature_info(self.net, layer)["num_chs"]) for layer in self.layers]

    def forward(self, glimpse: Float[Tensor, "batch channel g g"], *, first_glimpse: bool = False) -> Features:
        """Features of one glimpse of each image; ``first_glimpse`` selects the statistics if they are separate."""
        net = self.first_glimpse_net if first_glimpse and self.first_glimpse_net is not None else self.net
        # forward_intermediates needs at least one layer; without layers, keep no maps alive.
        last, maps = (
            net.forward_intermediates(glimpse, indices=self.layers)
            if self.layers
            else (net.forward_features(glimpse), [])
        )
        return Features(net.forward_head(last, pre_logits=True), maps)


def feature_info(net: Any, layer: int) -> dict[str, Any]:
    """timm's description of one of a model's feature maps: ``num_chs``, ``module``...

    Raises:
        ValueError: if the model has no such layer.
    """
    maps = list(getattr(net, "feature_info", []))
    if not -len(maps) <= layer < len(maps):
        raise ValueError(f"no feature map {layer}; the backbone has {len(maps)}: {-len(maps)} (first) to -1 (last)")
    return maps[layer]


def _has_batch_norm(net: nn.Module) -> bool:
    return any(isinstance(module, _BatchNorm) for module in net.modules())


def _with_own_norms(net: nn.Module) -> nn.Module:
    """A copy that shares every parameter with ``net`` except those of its batch normalisation layers."""
    twin = copy.deepcopy(net)
    for name, module in net.named_modules():
        if not isinstance(module, _BatchNorm):
            for key, parameter in module.named_parameters(recurse=False):
                twin.get_submodule(name).register_parameter(key, parameter)
    return twin


def create_backbone_net(
    name: str, *, in_channels: int = 3, image_size: int | None = None, pretrained: bool = False, num_classes: int = 0
) -> nn.Module:
    """A timm model by name; ``image_size`` is the input's side, for models that fix it (vision transformers).

    Raises:
        UserError: for an unknown name (lists the nearest ones), or if the weights are not available.
    """
    if not timm.is_model(name):
        architecture = name.split(".")[0]
        nearest = difflib.get_close_matches(architecture, timm.list_models(), n=5, cutoff=0.5)
        hint = f"did you mean {', '.join(nearest)}?" if nearest else "timm.list_models() lists the names"
        raise UserError(f"unknown backbone '{name}'; {hint}")
    settings: dict[str, Any] = {"in_chans": in_channels, "num_classes": num_classes}
    configuration = timm.get_pretrained_cfg(name)
    if configuration is not None and configuration.fixed_input_size and image_size:
        settings["img_size"] = image_size
    try:
        net = timm.create_model(name, pretrained=pretrained, **settings)
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        reason = first_line(error).rstrip(".")
        if isinstance(error, LocalEntryNotFoundError):
            reason = "they are not cached on this machine, and the Hugging Face Hub cannot be reached"
        raise PretrainedWeightsError(
            f"no pretrained weights for '{name}': {reason}; set backbone_weights to a file, or train from scratch"
        ) from error
    if isinstance(net, timm.models.resnet.ResNet) and not pretrained:
        # As in torchvision, hence MGNet and the report; by default timm zeroes each block's last scale.
        net = timm.create_model(name, zero_init_last=False, **settings)
    return net


def backbone_normalization(net: nn.Module, in_channels: int) -> Normalization:
    """Mean and std of the backbone's own ``pretrained_cfg``; averaged over channels if the channel counts differ."""
    data = resolve_data_config(pretrained_cfg=getattr(net, "pretrained_cfg", None) or {})
    mean, std = data["mean"], data["std"]
    if len(mean) != in_channels:
        mean, std = [sum(mean) / len(mean)] * in_channels, [sum(std) / len(std)] * in_channels
    return Normalization(mean, std)


def load_backbone_weights(net: nn.Module, file: Path, name: str) -> None:
    """Load a backbone's weights strictly from safetensors or a plain ``torch.save``; the classifier is ignored.

    Raises:
        UserError: if tensors do not match; names the file and the first of them.
    """
    try:
        weights = read_tensors(file)
    except Exception as error:  # each reader raises its own types
        raise DamagedError(f"cannot read weights from {file}: {first_line(error)}") from error
    own = net.state_dict()
    classifiers = getattr(net, "pretrained_cfg", {}).get("classifier") or ()
    heads = tuple(f"{head}." for head in ([classifiers] if isinstance(classifiers, str) else classifiers))
    weights = {key: value for key, value in weights.items() if key in own or not key.startswith(heads or "\0")}
    problems = [
        f"{len(keys)} {what} (first: {keys[0]})"
        for what, keys in {
            "missing": sorted(own.keys() - weights.keys()),
            "unknown": sorted(weights.keys() - own.keys()),
            "of the wrong shape": sorted(k for k in own.keys() & weights.keys() if own[k].shape != weights[k].shape),
        }.items()
        if keys
    ]
    if problems:
        raise DamagedError(f"{file} does not contain the weights of '{name}': {', '.join(problems)}")
    net.load_state_dict(weights)


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Name -> tensor from safetensors or a ``torch.save`` of plain tensors; runs no code from the file."""
    if os.fspath(file).endswith(".safetensors"):
        return safetensors.torch.load_file(file)
    content = torch.load(file, map_location="cpu", weights_only=True)
    content = content.get("state_dict", content)
    return {key: value for key, value in content.items() if isinstance(value, Tensor)}
