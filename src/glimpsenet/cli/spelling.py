"""Words that nothing is called by are told in one line with the nearest, before tyro reads the others."""

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args, get_origin

from glimpsenet.errors import SettingError, did_you_mean
from glimpsenet.kinds import Kind

Commands = Mapping[str, "Callable[..., None] | Commands"]
"""Name -> command, or those below it."""


def check_spelling(arguments: Sequence[str], commands: Commands) -> set[str]:
    """Refuse the first command, recipe or flag that does not exist; returns the flags of the command.

    Args:
        arguments: of the command line.
        commands: all that there are.

    Raises:
        SettingError: naming it, and the nearest or the kind that has the setting.
    """
    if not {"-h", "--help"}.isdisjoint(arguments):
        return set()
    path: list[str] = []
    found: Any = commands
    while isinstance(found, Mapping):
        word = next(iter(arguments[len(path) :]), "-")
        if word.startswith("-"):
            return set()
        if word not in found:
            kind = "recipe" if path == ["train"] else "command"
            raise SettingError(f"no {kind} '{word}'; {did_you_mean(word, list(found))}")
        path.append(word)
        found = found[word]
    known = set(flags_of_command(found))
    for word in arguments[len(path) :]:
        flag = word.partition("=")[0].replace("_", "-")
        if flag.startswith("--") and flag not in known:
            settings = next((p.default for p in _parameters(found) if dataclasses.is_dataclass(p.default)), None)
            way = _way_to_setting(flag, known, settings) if path[0] == "train" else None
            lists = f"{' '.join(['glimpsenet', *path])} --help lists them"
            raise SettingError(f"no flag '{flag}'; {way or did_you_mean(flag, sorted(known), lists)}")
    return known


def _parameters(command: Callable[..., None]) -> Iterable[inspect.Parameter]:
    return inspect.signature(command).parameters.values()


def flags_of_command(command: Callable[..., None]) -> Iterator[str]:
    """Flags of a function's keyword-only parameters."""
    for parameter in _parameters(command):
        if dataclasses.is_dataclass(parameter.default):
            yield from flags_of_settings(parameter.default)
        elif parameter.kind is parameter.KEYWORD_ONLY:
            renamed = [entry.name for entry in _arguments(parameter.annotation) if entry.name]
            yield from _spellings(*(renamed or [parameter.name]), default=parameter.default)


def flags_of_settings(settings: Any, prefix: str = "") -> Iterator[str]:
    """Flags of a dataclass's fields; those of a kind begin with what it is a kind of."""
    for entry in dataclasses.fields(settings):
        value = getattr(settings, entry.name)
        renamed = [one.name for one in _arguments(entry.type) if one.name is not None]
        if not dataclasses.is_dataclass(value):
            yield from _spellings(f"{prefix}{(renamed or [entry.name])[0]}", default=value)
        elif isinstance(value, Kind) and not dataclasses.fields(value):
            yield from _spellings(f"{prefix}{entry.name}")
        else:
            yield from flags_of_settings(value, prefix if renamed == [""] else f"{prefix}{entry.name}.")


def _arguments(annotation: Any) -> Iterator[Any]:
    """tyro's settings within an annotation."""
    if hasattr(annotation, "__metadata__"):
        yield from (entry for entry in annotation.__metadata__ if hasattr(entry, "metavar"))
        yield from _arguments(annotation.__origin__)
    elif get_origin(annotation) is not None:
        for part in get_args(annotation):
            yield from _arguments(part)


def _spellings(name: str, default: Any = None) -> Iterator[str]:
    flag = name.replace("_", "-")
    yield f"--{flag}"
    if isinstance(default, bool):
        group, _, last = flag.rpartition(".")
        yield f"--{group}{'.' if group else ''}no-{last}"


def _way_to_setting(flag: str, known: set[str], settings: Any) -> str | None:
    """Where a setting is that is called like the flag: under its full name, or with another kind."""
    name = flag.removeprefix("--").rpartition(".")[2]
    if full := [one for one in sorted(known) if one.endswith(f".{name}")]:
        return f"did you mean '{full[0]}'?"
    for family, own in _kinds_within(settings):
        if others := family.kinds.having(name.removeprefix("no-").replace("-", "_")):
            return f"{family.kinds.family} '{others[0]}' has it, this recipe has {family.kinds.family} '{own}'"
    return None


def _kinds_within(settings: Any) -> Iterator[tuple[Any, str]]:
    """Families of which the settings hold a kind, with that kind's name."""
    for entry in dataclasses.fields(settings):
        value = getattr(settings, entry.name)
        if isinstance(value, Kind):
            yield next(base for base in type(value).__mro__ if Kind in base.__bases__), value.kind
        if dataclasses.is_dataclass(value):
            yield from _kinds_within(value)
