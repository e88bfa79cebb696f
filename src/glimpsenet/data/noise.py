"""What libtiff says of damaged files: one warning a run, instead of lines on standard error.

Pillow leaves libtiff's error handler as it is, and that one prints, from C, whatever Python does with ``sys.stderr``.
libtiff calls its handler in the thread that decodes: ours keeps the messages of the image being read in that thread and
passes those of all other threads to the handler before it. No file descriptor is redirected, so nothing that others
write is lost, held back or waited for.

    worker process: read -> its own messages -> batch.noise -> process that trains: its loader -> one warning at the end

The other decoders (JPEG, PNG, WebP, GIF, ...) print nothing. Where libtiff is hidden inside Pillow, as on Windows, its
handler cannot be set, and messages stay where they were.
"""

import contextlib
import ctypes
import functools
import threading
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

from glimpsenet.errors import DataWarning, first_line
from glimpsenet.tables import counted


class Heard(NamedTuple):
    """What was said while one image was read."""

    messages: int
    first: str


Noise = dict[str, Heard]
"""Image -> what was said of it, in the order it was heard."""

_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)
"""libtiff's: module, format, va_list (a pointer, or passed by address, on every platform)."""


class _Ledger:
    """What this process heard and has not told yet."""

    def __init__(self, worker: bool = False):
        self.lock, self.noise, self.open_runs, self.worker = threading.Lock(), Noise(), 0, worker


_ledger = _Ledger()
_here = threading.local()


@contextlib.contextmanager
def listening(name: str) -> Iterator[None]:
    """Around the decoding of the image ``name`` in this thread.

    If it fails, the first message is the reason that the error gives; otherwise messages go to the run's warning, or
    are one at once where no run is open.
    """
    _install_handler()
    _here.messages = messages = list[str]()
    try:
        yield
    except Exception as error:
        if not messages:
            raise
        raise ValueError(f"{first_line(error)}; libtiff says: {messages[0]}") from error
    finally:
        _here.messages = None
    if messages:
        gather({name: Heard(len(messages), messages[0])})


def gather(noise: Noise) -> None:
    """Take over what was heard, here or in a worker process."""
    if not noise:
        return
    with _ledger.lock:
        _ledger.noise.update({name: heard for name, heard in noise.items() if name not in _ledger.noise})
        told_later = _ledger.worker or _ledger.open_runs > 0
    if not told_later:
        _warn(_take())


def take_along() -> Noise:
    """In a worker process what it has heard since it was last asked, for the one that it reads for; else nothing."""
    return _take() if _ledger.worker else {}


def _take() -> Noise:
    with _ledger.lock:
        noise, _ledger.noise = _ledger.noise, {}
    return noise


@contextlib.contextmanager
def one_warning() -> Iterator[None]:
    """A run: what is heard meanwhile is one :class:`~glimpsenet.errors.DataWarning` at its end.

    Within another run it is that one's.
    """
    with _ledger.lock:
        _ledger.open_runs += 1
    try:
        yield
    finally:
        with _ledger.lock:
            _ledger.open_runs -= 1
            over = _ledger.open_runs == 0
        if over:
            _warn(_take())


def start_worker(_: int) -> None:
    """In a new process that reads for another: it warns of nothing, :func:`take_along` has it all."""
    global _ledger
    _ledger = _Ledger(worker=True)  # a forked process has its parent's, perhaps locked by a thread that is not here


def _warn(noise: Noise) -> None:
    if noise:
        (name, heard), *_ = noise.items()
        images, messages = len(noise), sum(each.messages for each in noise.values())
        found = f"libtiff finds damage in {counted(images, 'image')} ({counted(messages, 'message')})"
        warnings.warn(f"{found} and reads what it can; the first: {name}: {heard.first}", DataWarning, stacklevel=2)


@functools.cache
def _install_handler() -> Any:
    """Once a process; kept alive by the cache, since libtiff holds no more than its address."""
    from PIL import Image

    # A lookup in Pillow's library searches those it was linked with: the very libtiff that decodes.
    set_handler = getattr(ctypes.CDLL(Image.core.__file__), "TIFFSetErrorHandler", None)
    if set_handler is None:
        return None
    set_handler.restype, set_handler.argtypes = _HANDLER, [_HANDLER]
    write = ctypes.CDLL(None).vsnprintf
    write.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p]

    @_HANDLER
    def hear(module: bytes | None, form: bytes, values: int | None) -> None:
        messages = getattr(_here, "messages", None)
        if messages is None:
            if before:
                before(module, form, values)
            return
        text = ctypes.create_string_buffer(200)
        write(text, len(text), form, values)
        messages.append(b": ".join(filter(None, (module, text.value))).decode(errors="replace"))

    before = set_handler(hear)
    return hear
