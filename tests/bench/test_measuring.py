"""Timing, memory and roofline by hand; no test looks at a clock."""

import pytest
import torch

from glimpsenet.bench import timing
from glimpsenet.bench.memory import peak_bytes
from glimpsenet.bench.roofline import Roofline, measure_roofline
from glimpsenet.bench.timing import Timing, interleaved

CPU = torch.device("cpu")


class Clock:
    """Goes forward only when told."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


def test_candidates_take_turns_after_they_are_warm(monkeypatch):
    clock, order = Clock(), []
    monkeypatch.setattr(timing, "time", clock)

    def candidate(name: str, seconds: float):
        def call() -> None:
            order.append(name)
            clock.now += seconds

        return call

    result = interleaved({"slow": candidate("s", 1.0), "fast": candidate("f", 0.05)}, CPU, 3)
    assert "".join(order) == "sss" + "fff" + 3 * ("s" + "ff")
    assert result["slow"].median == pytest.approx(1)
    assert result["fast"].seconds == pytest.approx([0.05] * 3)


def test_what_is_told_of_a_timing():
    told = Timing([0.004, 0.001, 0.003, 0.002, 0.010]).to_dict()
    assert told == {"ms": pytest.approx(3), "ms_quartiles": pytest.approx([2, 4]), "repetitions": 5}
    assert Timing([0.002]).to_dict()["ms_quartiles"] == pytest.approx([2, 2])


def test_peak_memory_by_hand():
    kept = []

    def call() -> None:
        first = torch.zeros(1000)
        second = torch.zeros(500)
        del first
        third = torch.zeros(250)  # now 3,000 bytes, before 6,000
        kept[:] = [second, third]

    peak = peak_bytes(call, CPU)
    # While the second call runs, what the first one kept is there before, and goes at the end.
    assert peak == 6000


def test_the_roofline_by_hand():
    roofline = Roofline(flops=1e9, bytes=1e6)
    assert roofline.least_seconds(2e9) == 2
    assert roofline.least_seconds(2e9, 3e6) == 3


def test_the_roofline_of_this_machine_is_a_roofline(monkeypatch):
    monkeypatch.setattr("glimpsenet.bench.roofline.SIDE", {"cpu": 64})
    monkeypatch.setattr("glimpsenet.bench.roofline.BYTES", 2**16)
    roofline = measure_roofline(CPU, torch.float32)
    assert roofline.flops > 0
    assert roofline.bytes > 0
