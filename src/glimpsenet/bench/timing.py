"""Time alternatives in turn in one run, so that other load on the machine affects all of them.

    for repetition: for candidate: seconds = clock(calls of it) / calls

A measurement is a number of calls that takes ``LEAST_SECONDS``; the results are the median and the quartiles of the
repetitions. Each candidate first runs until it is warm: caches, compilers, clock rates.
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
    """Seconds per call."""

    seconds: list[float]
    """One value per repetition."""

    @property
    def median(self) -> float:
        """The values to report."""
        return statistics.median(self.seconds)

    def to_dict(self) -> dict[str, Any]:
        """Median and quartiles in milliseconds, and the number of repetitions."""
        quartiles = [1e3 * seconds for seconds in _quartiles(self.seconds)]
        return {"ms": 1e3 * self.median, "ms_quartiles": quartiles, "repetitions": len(self.seconds)}

    def ratio_to(self, reference: "Timing") -> dict[str, Any]:
        """Ratio of the medians, and quartiles of the repetitions' ratios; requires both to be timed in turn."""
        each = [own / other for own, other in zip(self.seconds, reference.seconds, strict=True)]
        return {"ratio": self.median / reference.median, "ratio_quartiles": _quartiles(each)}


def _quartiles(values: list[float]) -> list[float]:
    """The first and the third quartile."""
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
    """Seconds per call, including its work on the device."""
    synchronize(device)
    start = time.perf_counter()
    for _ in range(calls):
        call()
    synchronize(device)
    return (time.perf_counter() - start) / calls


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _warm_up(call: Callable[[], object], device: torch.device) -> int:
    """Number of calls per measurement, found after warm-up calls."""
    for _ in range(WARM_CALLS):
        call()
    return max(1, round(LEAST_SECONDS / clock(call, device)))
