"""An experiment as settings: what the model is, what it is trained on, how; free of torch, so that help is quick.

``recipes.py`` names some. A run folder keeps its own as ``config.json``; :func:`from_json` reads it back strictly.
Parts that come in kinds (``kinds.py``) stand there with their kind: ``"policy": {"kind": "tokens", "scales": [0.3]}``.
"""

import dataclasses
import functools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glimpsenet.data.config import AugmentationConfig, DataConfig, FolderConfig
from glimpsenet.errors import DamagedError, SettingError, UserError, did_you_mean
from glimpsenet.kinds import Kind, UnknownKindError, require, settings_of
from glimpsenet.models.config import PARTS, ModelConfig
from glimpsenet.training.config import ObjectiveConfig, TrainingConfig

VERSION = 2
"""Of the format of ``config.json``."""
FAMILIES: tuple[Any, ...] = (*PARTS.values(), DataConfig, AugmentationConfig, ObjectiveConfig)


@dataclass(frozen=True, kw_only=True)
class Config:
    """An experiment; with the seed, everything that its result depends on."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=FolderConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    seed: int = 0
    """Everything random follows from it, 0 to 2^32 - 1."""

    def __post_init__(self) -> None:
        check_seed(self.seed)

    @property
    def photos(self) -> FolderConfig:
        """How image files are read and made square."""
        return self.data.photos

    def with_data(self, folder: Path) -> "Config":
        """The same on another image folder."""
        return dataclasses.replace(self, data=dataclasses.replace(self.photos, data=folder))


def check_seed(seed: int) -> None:
    """Refuse what numpy and torch cannot both take.

    Raises:
        SettingError: unless 0 <= seed < 2^32.
    """
    require(0 <= seed < 2**32, f"seed must be in 0..{2**32 - 1}, got {seed}")


def _converter() -> Any:
    import cattrs

    converter = cattrs.Converter(forbid_extra_keys=True)
    # cattrs converts by default: "no" to True, 40.5 to 40.
    for kind, accepted in {bool: bool, int: int, float: (int, float), str: str}.items():
        converter.register_structure_hook(kind, functools.partial(_take_as_it_is, accepted))
    for family in FAMILIES:
        converter.register_structure_hook(family, functools.partial(_read_kind, converter))
        converter.register_unstructure_hook(family, functools.partial(_write_kind, converter))
    return converter


def _take_as_it_is(accepted: Any, value: Any, kind: type) -> Any:
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{value!r} is not of type {kind.__name__}")
    return kind(value)


def _read_kind(converter: Any, value: Any, family: Any) -> Kind:
    if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
        raise TypeError(f"{value!r} is no {family.kinds.family}: it does not name its kind")
    settings = {name: entry for name, entry in value.items() if name != "kind"}
    try:
        kind = family.kinds[value["kind"]]
    except UnknownKindError as error:  # as a KeyError, cattrs would take it for a missing field
        raise SettingError(str(error)) from error
    for name in settings:
        if name not in settings_of(kind):
            others = family.kinds.having(name)
            way = f"'{others[0]}' has one" if others else did_you_mean(name, settings_of(kind), "it has none")
            raise SettingError(f"{family.kinds.family} '{kind.kind}' has no setting '{name}'; {way}")
    from cattrs.gen import make_dict_structure_fn

    return make_dict_structure_fn(kind, converter, _cattrs_forbid_extra_keys=True)(settings, kind)


def _write_kind(converter: Any, value: Kind) -> dict[str, Any]:
    from cattrs.gen import make_dict_unstructure_fn

    return {"kind": value.kind, **make_dict_unstructure_fn(type(value), converter)(value)}


def to_dict(config: Config) -> dict[str, Any]:
    """Plain values, for JSON."""
    return _converter().unstructure(config, Config)


def _problem(error: BaseException, kind: type | None) -> str:
    """Settings say themselves what is wrong with them; of other errors cattrs makes a sentence."""
    from cattrs.v import format_exception

    return str(error) if isinstance(error, UserError) else format_exception(error, kind)


def from_dict(values: Any) -> Config:
    """The inverse of :func:`to_dict`.

    Raises:
        UserError: naming the setting that is unknown, missing or of another type.
    """
    import cattrs

    try:
        return _converter().structure(values, Config)
    except cattrs.BaseValidationError as error:
        problems = cattrs.transform_error(error, path="config", format_exception=_problem)
        raise DamagedError(f"bad configuration: {'; '.join(problems)}") from error
    except Exception as error:  # whatever a value of the wrong kind provokes while it is converted
        raise DamagedError(f"bad configuration: {error}") from error


def from_json(text: str) -> Config:
    """A configuration from JSON text; see :func:`from_dict`."""
    try:
        return from_dict(json.loads(text))
    except (ValueError, RecursionError) as error:  # no JSON; a number of thousands of digits; lists without end
        raise DamagedError(f"bad configuration: not JSON: {error}") from error
