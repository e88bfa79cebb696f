"""MGNet's checkpoints, read as a :class:`~glimpsenet.models.glimpsenet.GlimpseNet` that computes the same.

    backbone.*  feat_fusion.mha.*  feat_fusion.norm.*  loc_network.fc.*  global_fc.fc.*  glimpse_fc.fc.*

are MGNet's names (Tan, Dong & Ma: "Multi-Glimpse Network", BMVC 2021, arXiv 2111.02018). PyTorch Lightning puts
``model.`` before them and keeps them under ``state_dict``, beside metrics, callbacks and a pickled scheduler. A pickle
can run any code: here whatever it names besides tensors becomes an inert stub, and no code of the file is run.
"""

import logging
import pickle
import types
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch._utils
from torch import Tensor

from glimpsenet.config import Config
from glimpsenet.data.config import FolderConfig, ImageNetAugmentation
from glimpsenet.data.finding import LeftOut, find_classes
from glimpsenet.errors import DamagedError, MissingDataError, MissingError, UserError
from glimpsenet.models.build import build_model
from glimpsenet.models.config import (
    MGNetConfig,
    ModelConfig,
    replace_settings,
)
from glimpsenet.models.glimpsenet import GlimpseNet
from glimpsenet.runs import Description, save_weights, write_description

logger = logging.getLogger(__name__)

NAMES = {
    "backbone.": "backbone.net.",  # torchvision's names of a ResNet's layers are timm's, too
    "feat_fusion.mha.": "fusion.attention.",
    "feat_fusion.norm.": "fusion.norm.",
    "loc_network.fc.": "policy.fc.",
    "global_fc.fc.": "classifier.",
    "glimpse_fc.fc.": "auxiliary_classifier.",
}
"""MGNet's prefixes -> ours."""
LIGHTNING_PREFIX = "model."


class MGNetWeights(NamedTuple):
    """What a checkpoint of MGNet holds."""

    tensors: dict[str, Tensor]
    """By MGNet's names, without Lightning's prefix."""
    ignored: list[str]
    """Entries of the state dict that are not the model's: metrics."""

    @property
    def num_classes(self) -> int:
        """Rows of the classifier."""
        return len(self.tensors["global_fc.fc.weight"])

    @property
    def auxiliary(self) -> bool:
        """Whether there is an auxiliary classifier."""
        return any(name.startswith("glimpse_fc.") for name in self.tensors)


def load_mgnet(
    path: str | Path,
    *,
    backbone: str = "resnet18",
    num_glimpses: int = 4,
    scale_factor: float = 2.33,
    scale_range: tuple[float, float] = (0.2, 0.5),
    image_size: int = 224,
) -> GlimpseNet:
    """The model of an MGNet checkpoint, in evaluation mode; classes and auxiliary classifier are the file's.

    A file does not tell the settings: they are to be those it was trained with.

    Args:
        path: a Lightning checkpoint, or a plain state dict. No code of it is run.
        backbone: the ResNet it was trained with.
        num_glimpses: T, the first glimpse included.
        scale_factor: image size over glimpse size.
        scale_range: smallest and largest half side s of a window.
        image_size: side of the square image in pixels.

    Raises:
        UserError: if the file cannot be read, or does not hold the weights of that model.

    Source: Tan et al. 2021, and the names of tensors in its code.

    Example:
        >>> model = glimpsenet.load_mgnet("mgnet.ckpt", backbone="resnet18", image_size=64)
        >>> model.num_classes, model.num_glimpses
        (5, 4)
    """
    config = MGNetConfig(
        backbone=backbone,
        num_glimpses=num_glimpses,
        scale_factor=scale_factor,
        scale_range=scale_range,
        image_size=image_size,
    )
    return _assemble(Path(path), config.model())[0]


def import_mgnet(
    path: str | Path,
    run_folder: str | Path,
    settings: MGNetConfig | None = None,
    *,
    classes: list[str] | None = None,
    data: Path | None = None,
) -> list[str]:
    """Make a run folder of an MGNet checkpoint, for every command that takes one.

    Args:
        path: a Lightning checkpoint, or a plain state dict. No code of it is run.
        run_folder: a new folder.
        settings: those it was trained with; the paper's if None.
        classes: names in the order of the classifier's outputs; "0", "1", ... if None.
        data: a folder with val/CLASS, to name the classes by instead.

    Returns:
        Entries of the checkpoint that are not the model's, and were ignored: metrics.

    Raises:
        UserError: see :func:`load_mgnet`; if the folder is not empty, or there are more or fewer names than classes.
    """
    path, run_folder = Path(path), Path(run_folder)
    if run_folder.exists() and not (run_folder.is_dir() and not any(run_folder.iterdir())):
        raise UserError(f"{run_folder} is not an empty folder; choose another")
    model, config, ignored = _assemble(path, (settings or MGNetConfig()).model())
    classes = classes if data is None else _names(data / "val")
    classes = [str(index) for index in range(model.num_classes)] if classes is None else classes
    if len(classes) != model.num_classes:
        raise UserError(f"{path} has {model.num_classes} classes; {len(classes)} names are given for them")
    description = Description(
        Config(model=config, data=FolderConfig(augmentation=ImageNetAugmentation())), classes, channels=3
    )
    run_folder.mkdir(parents=True, exist_ok=True)
    save_weights(model, run_folder)
    write_description(run_folder, description)
    return ignored


def _names(folder: Path) -> list[str]:
    """In MGNet's order, which is torchvision's and not the natural one."""
    if not folder.is_dir():
        raise MissingDataError(f"no folder {folder} to name the classes by")
    left_out = LeftOut()
    names = sorted(find_classes(folder, left_out))
    left_out.warn()
    return names


def _assemble(path: Path, config: ModelConfig) -> tuple[GlimpseNet, ModelConfig, list[str]]:
    weights = read_mgnet(path)
    config = replace_settings(config, auxiliary_classifier=weights.auxiliary)
    model = build_model(config, num_classes=weights.num_classes, initial_weights=False)
    _check_fit(path, config.backbone, weights.tensors, model)
    model.load_state_dict({_our_name(name): tensor for name, tensor in weights.tensors.items()})
    return model.eval(), config, weights.ignored


def _our_name(name: str) -> str:
    for theirs, ours in NAMES.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def _their_name(name: str) -> str:
    for theirs, ours in NAMES.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def _check_fit(path: Path, backbone: str, weights: dict[str, Tensor], model: GlimpseNet) -> None:
    """Every tensor of the file must have its place in the model, and the other way round."""
    own = {_their_name(name): tensor for name, tensor in model.state_dict().items()}
    problems = [
        f"{len(names)} {what} (first: {names[0]})"
        for what, names in {
            "missing": [name for name in own if name not in weights],
            "unknown": [name for name in weights if name not in own],
            "of another shape": [n for n, tensor in own.items() if n in weights and weights[n].shape != tensor.shape],
        }.items()
        if names
    ]
    if problems:
        raise DamagedError(
            f"{path} does not hold an MGNet with backbone '{backbone}': {', '.join(problems)};"
            " name the backbone that it was trained with"
        )


def read_mgnet(path: Path) -> MGNetWeights:
    """The weights of an MGNet checkpoint, as they are named there.

    Raises:
        UserError: if the file cannot be read, or there is no MGNet in it.
    """
    content = read_without_running(path)
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise DamagedError(f"{path} is no checkpoint of MGNet: there is no state_dict in it")
    prefix = LIGHTNING_PREFIX if any(name.startswith(LIGHTNING_PREFIX) for name in state) else ""
    own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    ignored = [name for name in state if not name.startswith(prefix)]
    for name, value in own.items():
        if not isinstance(value, Tensor):
            raise DamagedError(f"{path}: '{prefix}{name}' is no tensor, so this is no checkpoint of MGNet")
    if "global_fc.fc.weight" not in own or own["global_fc.fc.weight"].dim() != 2:
        found = f"it has {', '.join(list(own)[:3])}..." if own else "it is empty"
        raise DamagedError(f"{path} is no checkpoint of MGNet: there is no matrix global_fc.fc.weight in it; {found}")
    if ignored:
        logger.info("%s: ignored what is not the model's: %s", path, ", ".join(ignored))
    return MGNetWeights(own, ignored)


def read_without_running(path: Path) -> Any:
    """What ``torch.save`` wrote, with an inert stub for everything but tensors and plain containers.

    Raises:
        UserError: if the file is damaged, or no such file.
    """
    if not path.is_file():
        raise MissingError(f"no such file: {path}")
    zipped = True
    try:
        zipped = _is_zip(path)
        with warnings.catch_warnings(action="ignore"):  # torch's advice is about other ways to load
            return _load(path, zipped)
    except Exception as error:  # damaged files raise every kind
        reason = f"{(str(error) or type(error).__name__).splitlines()[0][:120]}; is the file complete?"
        if not zipped:
            reason = "it is no checkpoint, or one of torch before 1.6 with more in it than tensors; save its state_dict"
        raise DamagedError(f"cannot read weights from {path}: {reason}") from error


def _load(path: Path, zipped: bool) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        # There is more than tensors. Anything but a zip file would be taken for one of torch's older formats, which
        # do more than unpickle; TorchScript archives, which are programs, have failed above with another error.
        if not zipped:
            raise
    return torch.load(path, map_location="cpu", weights_only=False, pickle_module=_INERT_PICKLE)


def _is_zip(path: Path) -> bool:
    """As torch tells: by the first bytes."""
    with open(path, "rb") as stream:
        return stream.read(4) == b"PK\x03\x04"


class _Stub:
    """Stands for anything that is not a tensor: can be made, called and filled, and does nothing."""

    __slots__ = ()

    def __new__(cls, *_: Any, **__: Any) -> "_Stub":
        return super().__new__(cls)

    def nothing(*_: Any, **__: Any) -> None:
        """Without a ``self``: a pickle may treat the class like an object of it."""

    __init__ = __call__ = __setstate__ = __setitem__ = append = extend = add = nothing


class _Entries(dict[Any, Any]):
    """Stands for OrderedDict, without the attributes that a pickle may give it."""

    __slots__ = ()
    __setstate__ = _Stub.nothing


class _RebuildTensor(_Stub):
    """``torch._utils._rebuild_tensor_v2`` of what matters: no hooks, no gradient."""

    __slots__ = ()

    def __call__(self, storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
        return torch._utils._rebuild_tensor_v2(storage, offset, size, stride, False, {})


class _RebuildParameter(_Stub):
    """``torch._utils._rebuild_parameter``: the tensor in it."""

    __slots__ = ()

    def __call__(self, data: Tensor, *_: Any) -> Tensor:
        return data


# Objects of our own that nothing can be set on: a pickle can not only call what it names, but also alter it.
_KNOWN = {
    ("collections", "OrderedDict"): _Entries,
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
    ("torch._utils", "_rebuild_parameter"): _RebuildParameter(),
    ("torch._utils", "_rebuild_parameter_with_state"): _RebuildParameter(),
}


class _InertUnpickler(pickle.Unpickler):
    """Resolves every name to one of the objects above; torch.load has taken those of storages, data types, before."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        return _KNOWN.get((module_name, global_name), _Stub)


def _refuse(*_: Any, **__: Any) -> None:
    raise pickle.UnpicklingError("only zip files are read this way")


_INERT_PICKLE: Any = types.SimpleNamespace(__name__="inert", Unpickler=_InertUnpickler, load=_refuse)
