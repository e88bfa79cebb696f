"""Kinds: one frozen dataclass of settings for each kind of policy, clue, fusion, sampling, objective, data...

    PolicyConfig.kinds["tokens"]  ->  TokenConfig        a name is what config.json holds, a class what builds the part

The dataclasses of the kinds that this package has stand together in their package's ``config.py``: the command line
shows them without loading torch, so their ``build`` imports what it builds. A custom kind may stand in one file
with its class; one line makes it known: ``PolicyConfig.kinds["corners"] = "my_package.corners:CornersConfig"``.
"""

import dataclasses
import importlib
from abc import ABC
from collections.abc import Iterator, MutableMapping
from typing import Any, ClassVar, Generic, TypeVar

from glimpsenet.errors import SettingError, did_you_mean


def require(condition: bool, message: str) -> None:
    """Refuse a setting.

    Raises:
        SettingError: with ``message``, unless the condition holds.
    """
    if not condition:
        raise SettingError(message)


def at_least(least: int, **settings: int | tuple[int, ...]) -> None:
    """Refuse settings with values that are too small, or with none.

    Raises:
        SettingError: naming the setting.
    """
    for name, value in settings.items():
        values = value if isinstance(value, tuple) else (value,)
        shown = " ".join(map(str, values)) or "none"
        require(bool(values) and min(values) >= least, f"{name} must be {least} or more, got {shown}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind(ABC):
    """Settings of one kind of something; what they build is up to the family."""

    kind: ClassVar[str]
    """Its name."""


class UnknownKindError(SettingError, KeyError):
    """No kind has this name."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError's would quote it


K = TypeVar("K", bound=Kind)


class Kinds(MutableMapping[str, type[K]], Generic[K]):
    """The kinds of a family by name, each imported when it is asked for.

    Args:
        family: what they are kinds of.
        homes: name -> "module:class"; a class may be given itself.
    """

    def __init__(self, family: str, homes: dict[str, str]):
        self.family = family
        self.homes: dict[str, str | type[K]] = {**homes}

    def __getitem__(self, name: str) -> type[K]:
        home = self.homes.get(name)
        if home is None:
            raise UnknownKindError(f"no {self.family} '{name}'; {did_you_mean(name, self.homes)}")
        if not isinstance(home, str):
            return home
        module, _, attribute = home.partition(":")
        return getattr(importlib.import_module(module), attribute)

    def __setitem__(self, name: str, home: str | type[K]) -> None:
        self.homes[name] = home

    def __delitem__(self, name: str) -> None:
        del self.homes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.homes)

    def __len__(self) -> int:
        return len(self.homes)

    def having(self, setting: str) -> list[str]:
        """Names of the kinds that have a setting."""
        return [name for name, kind in self.items() if setting in settings_of(kind)]


def settings_of(kind: type[Any]) -> list[str]:
    """Names of the settings of a dataclass."""
    return [entry.name for entry in dataclasses.fields(kind)]
