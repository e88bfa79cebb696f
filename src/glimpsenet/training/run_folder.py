"""The folder a run is trained in: what it holds already, one process in it at a time, and how another run replaces it.

    holds                               the same settings             other settings
    nothing, or nothing that learned    starts                        refused, or replaced with ``overwrite``
    something that learned              refused, or resumed           the same
    a finished run                      complete, and left alone      the same

Nothing that was learned is ever lost without ``overwrite``.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from glimpsenet import runs
from glimpsenet.config import Config, to_dict
from glimpsenet.errors import OccupiedError, SettingError, UserError
from glimpsenet.files import remove_unfinished

FREE = ("workers", "validations", "log_localization_statistics", "skip_bad")
"""Settings that may change on the way: they do not change what is learned."""
TENSORBOARD = "tensorboard"
OWN = (
    runs.CONFIG,
    runs.SUMMARY,
    runs.WEIGHTS,
    runs.CHECKPOINTS,
    runs.METRICS,
    runs.LOCALIZATION,
    TENSORBOARD,
)
"""What training writes; a run that is replaced leaves all else in its folder alone."""
LOCK, REPLACED, REMOVED = ".lock", ".replaced", ".removed"
NEEDED = {"metrics", "test_metrics", "steps", "best_step", "skipped_images"}
"""Without these a summary is of an older version, and resuming the run writes it anew."""


def finished_summary(config: Config, out: Path) -> dict[str, Any] | None:
    """The summary of the finished run in ``out``, if it was trained with these settings; changes nothing.

    Raises:
        UserError: if ``config.json`` is damaged.
    """
    if not all((out / name).is_file() for name in (runs.CONFIG, runs.WEIGHTS, runs.SUMMARY)):
        return None
    try:
        summary = json.loads((out / runs.SUMMARY).read_text())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(summary, dict) or not summary.keys() >= NEEDED:
        return None
    return None if _first_change(runs.read_description(out).config, config) else summary


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Make a run folder, if need be, and keep other processes from training in it.

    The lock is the operating system's: it ends with the process that holds it, however that ends.

    Raises:
        UserError: if another process is training in it.
        OSError: if it cannot be made or written to.
    """
    made = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"another process is training in {out}; wait for it, or choose another folder") from None
    try:
        yield
    finally:
        with suppress(OSError):
            # While it is held: whoever has opened it meanwhile sees that it is gone. Not where existence is the lock.
            if type(lock) is FileLock:
                (out / LOCK).unlink()
        lock.release()
        if made:
            with suppress(OSError):
                out.rmdir()  # unless something was written


def check_folder(config: Config, out: Path, *, resume: bool = False, overwrite: bool = False) -> None:
    """Refuse to train over what a folder holds. Only the process that is alone in it may ask.

    Raises:
        UserError: if it holds files of no run, a run with other settings, or one that is not to be started over.
    """
    _end_replacing(out)
    if resume or (out / runs.CONFIG).is_file():  # of a process that was killed while it wrote
        for folder in (out, out / runs.CHECKPOINTS):
            remove_unfinished(folder)
    for unfinished in out.glob(f".{runs.CONFIG}.*.part"):  # before a folder can be told to be a run's
        unfinished.unlink()
    if all(file.name == LOCK for file in out.iterdir()):
        return
    if not resume and not (out / runs.CONFIG).is_file():
        raise UserError(f"{out} holds files, but no run; choose another folder")
    if overwrite:
        return
    changed = _first_change(runs.read_description(out).config, config)
    if changed and resume:
        way = "use the settings it was started with"
        if changed.startswith(("max_steps ", "epochs ")):  # the learning rate has come down along the old schedule
            way = "another schedule is another run, from its beginning, in another folder"
        raise UserError(f"cannot resume {out} with another {changed}; {way}")
    if changed:
        raise OccupiedError(f"{out} holds a run with another {changed}; choose another folder, or overwrite it")
    if not resume and not _has_only_begun(out):
        raise OccupiedError(f"{out} holds an unfinished run; resume it, overwrite it, or choose another folder")


def check_way(*, resume: bool, overwrite: bool) -> None:
    """Refuse to do two things at once.

    Raises:
        SettingError: for both.
    """
    if resume and overwrite:
        raise SettingError("resume continues the run that a folder holds, overwrite removes it: choose one of them")


def replace_run(out: Path, description: runs.Description) -> None:
    """Begin a run in ``out`` in place of the one there, which is removed once ``config.json`` of the new one stands.

    Until then an interruption leaves the old one: see :func:`check_folder`.
    """
    aside = out / REPLACED
    aside.mkdir()
    for name in OWN:
        if (out / name).exists():
            (out / name).rename(aside / name)
    runs.write_description(out, description)
    _end_replacing(out)


def _end_replacing(out: Path) -> None:
    """Whatever moment a replacement was interrupted at, leave one whole run: the new one once it has begun."""
    aside, removed = out / REPLACED, out / REMOVED
    if aside.is_dir():
        if (aside / runs.CONFIG).exists() and (out / runs.CONFIG).exists():
            aside.rename(removed)
        else:
            for file in aside.iterdir():
                file.rename(out / file.name)
            aside.rmdir()
    if removed.is_dir():
        shutil.rmtree(removed)


def _has_only_begun(out: Path) -> bool:
    """Whether a run's folder holds nothing that was learned."""
    checkpoints = any((out / runs.CHECKPOINTS).glob("*.ckpt"))
    return not checkpoints and not (out / runs.WEIGHTS).exists()


def _first_change(old: Config, new: Config) -> str | None:
    """The first setting that is not free to differ, with both values."""
    before, now = dict(flat(to_dict(old))), dict(flat(to_dict(new)))
    for name, value in now.items():
        if name not in FREE and before.get(name) != value:
            return f"{name} (it was {before.get(name)}, now {value})"
    return None


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by the names that flags have: ``image_size``, ``policy.layer``; of kinds, the kind comes first."""
    for name, value in settings.items():
        if not isinstance(value, dict):
            yield f"{prefix}{name}", value
        elif prefix or name not in ("model", "data", "training"):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield from flat(value)
