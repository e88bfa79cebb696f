"""How fast a model that glimpses is beside its plain backbone: inference, and training beside MGNet's recipe.

    inference   ratio = median(glimpses) / median(plain backbone),   both in the same mode and precision
    training    ratio = median(step) / median(step of MGNet's recipe, eager, float32)

Below 1 glimpses take less time. All candidates of a batch size are timed in turn in one run (``timing.py``), on random
images: no time depends on what is in them. Beside each time: peak memory, and the share of the speed that the machine
could reach (``roofline.py``).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from glimpsenet.bench.memory import peak_bytes
from glimpsenet.bench.roofline import Roofline, measure_roofline
from glimpsenet.bench.subjects import Classify, Mode, Subject, glimpsing, plain
from glimpsenet.bench.timing import Timing, interleaved
from glimpsenet.bench.training import training_steps
from glimpsenet.evaluation.efficiency import measure_cost, operations_of

Precision = Literal["float32", "bfloat16"]
Candidate = tuple[str, str]
"""What (plain, glimpses, training) and its mode."""
REFERENCE: Candidate = ("training", "reference")


def bench_speed(
    subject: Subject,
    *,
    batch_sizes: Sequence[int],
    modes: Sequence[Mode],
    precision: Precision = "float32",
    training_batch: int | None = None,
    repetitions: int = 7,
    tell: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Measure one model.

    Args:
        subject: from :func:`glimpsenet.bench.subjects.open_subject`.
        batch_sizes: of inference.
        modes: see ``subjects.py``; MGNet's training step is always measured too.
        precision: of the matrix products, by autocast; only MGNet's training step stays in float32.
        training_batch: images of a training step; None leaves training out.
        repetitions: of every measurement.
        tell: called with what is finished.

    Returns:
        ``precision``, ``repetitions``, ``ratios`` (a row a mode and batch: glimpses beside plain), ``cost``,
        ``roofline``, and rows under ``inference`` and ``training``.
    """
    device, dtype = subject.device, getattr(torch, precision)
    # Clocks go up and down: what the machine can do is the best that was seen at any time of the run.
    rooflines = [measure_roofline(device, dtype)]
    cost = measure_cost(subject.model, subject.config.model.image_size, subject.channels)
    candidates: dict[Candidate, Classify] = {}
    for mode in modes:
        candidates |= {("plain", mode): plain(subject, mode), ("glimpses", mode): glimpsing(subject, mode)}
    whole = plain(subject, "eager")
    operations = {"plain": operations_of(lambda: whole(subject.images(1))), "glimpses": cost["operations"][-1]}
    weights = dtype.itemsize * sum(weight.numel() for weight in subject.model.backbone.net.parameters())
    # Each look reads them anew: it cannot begin before the one before has ended.
    bytes_read = {"plain": weights, "glimpses": weights * subject.model.num_glimpses}
    inference: list[dict[str, Any]] = []
    ratios: list[dict[str, Any]] = []
    for batch in batch_sizes:
        work = {kind: (batch * operations[kind], bytes_read[kind]) for kind in operations}
        images = subject.images(batch)
        calls = {key: _inference(classify, images, dtype) for key, classify in candidates.items()}
        timings = interleaved(calls, device, repetitions)
        inference += _rows(calls, timings, work, device, batch)
        ratios += [
            {"mode": mode, "batch": batch, **timings["glimpses", mode].ratio_to(timings["plain", mode])}
            for mode in modes
        ]
        rooflines.append(measure_roofline(device, dtype))
        tell(f"{subject.name}: inference at batch {batch}")
    training: list[dict[str, Any]] = []
    if training_batch is not None:
        steps = training_steps(subject, modes, dtype, training_batch)
        calls = {("training", name): step for name, step in steps.items()}
        work = {"training": (operations_of(calls[REFERENCE]), 0)}
        timings = interleaved(calls, device, repetitions)
        training = [
            row | timings["training", row["mode"]].ratio_to(timings[REFERENCE])
            for row in _rows(calls, timings, work, device, training_batch)
        ]
        rooflines.append(measure_roofline(device, dtype))
        tell(f"{subject.name}: training at batch {training_batch}")
    roofline = Roofline(max(seen.operations for seen in rooflines), max(seen.bytes for seen in rooflines))
    for row in inference + training:
        row["share_of_roofline"] = roofline.least_seconds(*row.pop("work")) / (row["ms"] / 1e3)
    return {
        "precision": precision,
        "repetitions": repetitions,
        "ratios": ratios,
        "cost": cost,
        "roofline": {"gflops": roofline.operations / 1e9, "gb_per_s": roofline.bytes / 1e9},
        "inference": inference,
        "training": training,
    }


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
