"""Timing of alternatives in one run, in turn, so that whatever else the machine does meets all of them.

    for repetition: for candidate: seconds = clock(calls of it) / calls

A measurement is a number of calls that takes ``LEAST_SECONDS``; told are the median and the quartiles of the
repetitions. Before that, each candidate runs until it is warm: caches, compilers, clocks.
"""

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

LEAST_SECONDS = 0.1
WARM_CALLS = 2
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Timing:
    """Seconds a call."""

    seconds: list[float]
    """One a repetition."""

    @property
    def median(self) -> float:
        """What to tell of it."""
        return statistics.median(self.seconds)

    def to_dict(self) -> dict[str, Any]:
        """In milliseconds: the median, the quartiles around it, and how many repetitions there were."""
        quartiles = [1e3 * seconds for seconds in _quartiles(self.seconds)]
        return {"ms": 1e3 * self.median, "ms_quartiles": quartiles, "repetitions": len(self.seconds)}

    def ratio_to(self, reference: "Timing") -> dict[str, Any]:
        """Of the medians, and the quartiles of each repetition's ratio; both were timed in turn."""
        each = [own / other for own, other in zip(self.seconds, reference.seconds, strict=True)]
        return {"ratio": self.median / reference.median, "ratio_quartiles": _quartiles(each)}


def _quartiles(values: list[float]) -> list[float]:
    """The first and the third."""
    if len(values) == 1:
        return 2 * values
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return [low, high]


def interleaved(
    candidates: Mapping[Key, Callable[[], object]], device: torch.device, repetitions: int
) -> dict[Key, Timing]:
    """Time every candidate ``repetitions`` times, in turn."""
    calls = {name: _warm_up(candidate, device) for name, candidate in candidates.items()}
    seconds: dict[Key, list[float]] = {name: [] for name in candidates}
    for _ in range(repetitions):
        for name, candidate in candidates.items():
            seconds[name].append(clock(candidate, device, calls[name]))
    return {name: Timing(values) for name, values in seconds.items()}


def clock(call: Callable[[], object], device: torch.device, calls: int = 1) -> float:
    """Seconds a call, its work on the device included."""
    synchronize(device)
    start = time.perf_counter()
    for _ in range(calls):
        call()
    synchronize(device)
    return (time.perf_counter() - start) / calls


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was told."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _warm_up(call: Callable[[], object], device: torch.device) -> int:
    """How many calls make a measurement, found after some that do not count."""
    for _ in range(WARM_CALLS):
        call()
    return max(1, round(LEAST_SECONDS / clock(call, device)))
