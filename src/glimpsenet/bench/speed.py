"""Speed of a glimpse model: inference against its plain backbone, training against MGNet's recipe.

    inference   ratio = median(glimpses) / median(plain backbone),   both in the same mode and precision
    training    ratio = median(step) / median(step of MGNet's recipe, eager, float32)

Below 1, glimpses take less time. All candidates of a batch size are timed in turn in one run (``timing.py``), on random
images, since content does not affect time. Each time comes with the peak memory and the share of the machine's possible
speed (``roofline.py``).
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from glimpsenet.bench.config import SpeedSettings
from glimpsenet.bench.memory import peak_bytes
from glimpsenet.bench.roofline import Roofline, measure_roofline
from glimpsenet.bench.subjects import Classify, Subject, glimpsing, plain
from glimpsenet.bench.timing import Timing, interleaved
from glimpsenet.bench.training import training_steps
from glimpsenet.evaluation.efficiency import flops_of, measure_cost

Candidate = tuple[str, str]
"""The subject (plain, glimpses, training) and its mode."""
REFERENCE: Candidate = ("training", "reference")


def bench_speed(
    subject: Subject, settings: SpeedSettings | None = None, *, tell: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Measure one model.

    Args:
        subject: from :func:`glimpsenet.bench.subjects.open_subject`.
        settings: how speed is measured.
        tell: called with progress messages.

    Returns:
        ``precision``, ``repetitions``, ``ratios`` (a row per mode and batch: glimpses against plain), ``cost``,
        ``roofline``, and rows under ``inference`` and ``training``.
    """
    settings = settings or SpeedSettings()
    device, dtype = subject.device, getattr(torch, settings.precision)
    cost = measure_cost(subject.model, subject.config.model.image_size, subject.channels)
    # Clock rates vary: take the best rates seen during the run as the machine's peak.
    rooflines = [measure_roofline(device, dtype)]
    inference, ratios = _measure_inference(subject, settings, cost["flops"][-1], rooflines, tell)
    training = [] if settings.training is None else _measure_training(subject, settings, settings.training)
    if training:
        rooflines.append(measure_roofline(device, dtype))
        tell(f"{subject.name}: training at batch {settings.training}")
    roofline = Roofline(max(seen.flops for seen in rooflines), max(seen.bytes for seen in rooflines))
    for row in inference + training:
        row["share_of_roofline"] = roofline.least_seconds(*row.pop("work")) / (row["ms"] / 1e3)
    return {
        "precision": settings.precision,
        "repetitions": settings.repetitions,
        "ratios": ratios,
        "cost": cost,
        "roofline": {"gflops": roofline.flops / 1e9, "gb_per_s": roofline.bytes / 1e9},
        "inference": inference,
        "training": training,
    }


def _measure_inference(
    subject: Subject,
    settings: SpeedSettings,
    flops_of_glimpses: float,
    rooflines: list[Roofline],
    tell: Callable[[str], None],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of times and of ratios; appends the machine's current rates to ``rooflines``."""
    device, dtype = subject.device, getattr(torch, settings.precision)
    candidates: dict[Candidate, Classify] = {}
    for mode in settings.modes:
        candidates |= {("plain", mode): plain(subject, mode), ("glimpses", mode): glimpsing(subject, mode)}
    whole = plain(subject, "eager")
    flops = {"plain": flops_of(lambda: whole(subject.images(1))), "glimpses": flops_of_glimpses}
    weights = dtype.itemsize * sum(weight.numel() for weight in subject.model.backbone.net.parameters())
    # Each glimpse reads the weights again: it cannot start before the previous one ends.
    bytes_read = {"plain": weights, "glimpses": weights * subject.model.num_glimpses}
    times: list[dict[str, Any]] = []
    ratios: list[dict[str, Any]] = []
    for batch in settings.batch_sizes:
        work = {kind: (batch * flops[kind], bytes_read[kind]) for kind in flops}
        images = subject.images(batch)
        calls = {key: _inference(classify, images, dtype) for key, classify in candidates.items()}
        timings = interleaved(calls, device, settings.repetitions)
        times += _rows(calls, timings, work, device, batch)
        ratios += [
            {"mode": mode, "batch": batch, **timings["glimpses", mode].ratio_to(timings["plain", mode])}
            for mode in settings.modes
        ]
        rooflines.append(measure_roofline(device, dtype))
        tell(f"{subject.name}: inference at batch {batch}")
    return times, ratios


def _measure_training(subject: Subject, settings: SpeedSettings, batch: int) -> list[dict[str, Any]]:
    """Rows of training step times, each with its ratio to MGNet's recipe."""
    steps = training_steps(subject, settings.modes, getattr(torch, settings.precision), batch)
    calls = {("training", name): step for name, step in steps.items()}
    work = {"training": (flops_of(calls[REFERENCE]), 0)}
    timings = interleaved(calls, subject.device, settings.repetitions)
    rows = _rows(calls, timings, work, subject.device, batch)
    return [row | timings["training", row["mode"]].ratio_to(timings[REFERENCE]) for row in rows]


def _inference(classify: Classify, images: Tensor, dtype: torch.dtype) -> Callable[[], object]:
    def call() -> Tensor:
        with torch.inference_mode(), torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
            return classify(images)

    return call


def _rows(
    calls: Mapping[Candidate, Callable[[], object]],
    timings: Mapping[Candidate, Timing],
    work: Mapping[str, tuple[float, float]],
    device: torch.device,
    batch: int,
) -> list[dict[str, Any]]:
    return [
        {
            "what": what,
            "mode": mode,
            "batch": batch,
            **timing.to_dict(),
            "peak_mb": peak_bytes(calls[what, mode], device) / 1e6,
            "work": work[what],
        }
        for (what, mode), timing in timings.items()
    ]
