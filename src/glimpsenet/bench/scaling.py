"""How cost grows with T and image size, and from which size on glimpses pay, against the plain backbone.

    FLOPs ~ T (backbone + fusion),   memory ~ batch (image and its halvings + the widest maps of one glimpse)
    ratio = median(glimpses) / median(plain backbone on the whole image at full size), both in the same mode

The fusion stores keys and values, so each glimpse adds one product with a row for each glimpse so far. Crops have
glimpse_size pixels whatever the image's size, so only the image itself grows with it; the plain backbone's cost grows
with the image's area. Below a ratio of 1, glimpses take less time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from glimpsenet.bench.config import ScalingSettings
from glimpsenet.bench.memory import peak_bytes
from glimpsenet.bench.subjects import Classify, Subject, build_subject, glimpsing, plain
from glimpsenet.bench.timing import interleaved
from glimpsenet.evaluation.efficiency import count_flops, flops_of


@dataclass(frozen=True)
class _Case:
    varied: str
    value: int
    subject: Subject
    batch: int

    @property
    def whole(self) -> tuple[int, int]:
        """Size and batch, on which alone the plain backbone's time depends."""
        return self.subject.config.model.image_size, self.batch


def bench_scaling(subject: Subject, settings: ScalingSettings | None = None) -> dict[str, Any]:
    """Time all glimpses against the plain backbone, at each image size and batch; T is varied at the middle batch.

    Args:
        subject: from :func:`glimpsenet.bench.subjects.open_subject`; T is varied at its own size.
        settings: what to vary, and how to measure.

    Returns:
        ``mode``, ``repetitions``, ``rows`` (``varied``, ``value``, ``batch``; times, ``flops`` and ``peak_mb`` of
        a batch, the same of the plain backbone under ``plain``, ``ratio`` and its quartiles, ``image_mb``) and
        ``break_even`` (see :func:`break_even`).
    """
    settings = settings or ScalingSettings()
    cases = _cases(subject, settings)
    calls = {str(place): _call(glimpsing(case.subject, settings.mode), case) for place, case in enumerate(cases)}
    wholes = {case.whole: case for case in cases}
    calls |= {str(key): _call(plain(case.subject, settings.mode), case) for key, case in wholes.items()}
    timings = interleaved(calls, subject.device, settings.repetitions)

    def cost(key: str, flops: float) -> dict[str, Any]:
        peak = peak_bytes(calls[key], subject.device) / 1e6
        return {**timings[key].to_dict(), "flops": flops, "peak_mb": peak}

    costs = {key: cost(str(key), case.batch * _flops_of_whole(case.subject)) for key, case in wholes.items()}
    rows = [
        {
            "varied": case.varied,
            "value": case.value,
            "batch": case.batch,
            **cost(str(place), case.batch * _flops(case.subject)),
            "image_mb": case.subject.images(case.batch).nbytes / 1e6,
            "plain": costs[case.whole],
            **timings[str(place)].ratio_to(timings[str(case.whole)]),
        }
        for place, case in enumerate(cases)
    ]
    values = {"mode": settings.mode, "repetitions": settings.repetitions}
    return {**values, "rows": rows, "break_even": break_even(rows)}


def _cases(subject: Subject, settings: ScalingSettings) -> list[_Case]:
    batches, sizes = settings.batch_sizes, settings.image_sizes
    middle = batches[len(batches) // 2]
    cases = [_Case("glimpses", t, _with(subject, num_glimpses=t), middle) for t in settings.glimpses]
    sized = {size: _with(subject, image_size=size) for size in sizes}
    return cases + [_Case("image size", size, sized[size], batch) for size in sizes for batch in batches]


def break_even(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Batch -> smallest image size from which on glimpses reliably take less time: the upper quartile is below 1.

    ``image_size`` is None if they do not even at the largest.
    """
    sized = [row for row in rows if row["varied"] == "image size"]
    found = []
    for batch in dict.fromkeys(row["batch"] for row in sized):
        size = None
        for row in sorted((row for row in sized if row["batch"] == batch), key=lambda row: -row["value"]):
            if row["ratio_quartiles"][1] >= 1:
                break
            size = row["value"]
        found.append({"batch": batch, "image_size": size})
    return found


def _call(classify: Classify, case: _Case) -> Callable[[], object]:
    images = case.subject.images(case.batch)

    def call() -> torch.Tensor:
        with torch.inference_mode():
            return classify(images)

    return call


def _with(subject: Subject, **settings: Any) -> Subject:
    """The same subject with other settings and untrained weights, on which neither time nor memory depends."""
    config = replace(subject.config, model=replace(subject.config.model, **settings))
    return build_subject(config, subject.channels, subject.device, subject.model.num_classes)


def _flops(subject: Subject) -> int:
    """FLOPs of all glimpses of one image."""
    return count_flops(subject.model, subject.config.model.image_size, subject.channels)[-1]


def _flops_of_whole(subject: Subject) -> int:
    """FLOPs of the plain backbone on one image."""
    whole = plain(subject, "eager")
    return flops_of(lambda: whole(subject.images(1)))
