"""What cost grows with: glimpses T, image size, batch; one at a time, the others as the model has them.

    operations ~ T (backbone + fusion),   memory ~ batch (image and its halvings + the widest maps of one glimpse)

The fusion keeps keys and values, so each step adds one product with as many rows as there were looks. Windows are
glimpse_size pixels whatever the image's size, so nothing but the image itself grows with it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from glimpsenet.bench.memory import peak_bytes
from glimpsenet.bench.subjects import Subject, build_subject
from glimpsenet.bench.timing import interleaved
from glimpsenet.evaluation.efficiency import count_operations
from glimpsenet.inference.early_exit import Predictor
from glimpsenet.inference.fast import accelerate


@dataclass(frozen=True)
class _Case:
    varied: str
    value: int
    subject: Subject
    batch: int

    def call(self) -> Callable[[], object]:
        predictor = Predictor(accelerate(self.subject.model))
        images = self.subject.images(self.batch)
        return lambda: predictor(images).logits


def bench_scaling(
    subject: Subject,
    *,
    glimpses: Sequence[int],
    image_sizes: Sequence[int],
    batch_sizes: Sequence[int],
    repetitions: int = 7,
) -> list[dict[str, Any]]:
    """Time of all looks, eager, with the batch in the middle of ``batch_sizes`` where the batch is not varied.

    Returns:
        A row a case: ``varied``, ``value``, ``batch``, times, ``operations`` and ``peak_mb`` of a batch, ``image_mb``.
    """
    middle = batch_sizes[len(batch_sizes) // 2]
    cases = [_Case("glimpses", t, _with(subject, num_glimpses=t), middle) for t in glimpses]
    cases += [_Case("image size", size, _with(subject, image_size=size), middle) for size in image_sizes]
    own = _with(subject)
    cases += [_Case("batch", batch, own, batch) for batch in batch_sizes]
    calls = {str(place): case.call() for place, case in enumerate(cases)}
    timings = interleaved(calls, subject.device, repetitions)
    return [
        {
            "varied": case.varied,
            "value": case.value,
            "batch": case.batch,
            **timing.to_dict(),
            "operations": case.batch * _operations(case.subject),
            "peak_mb": peak_bytes(call, subject.device) / 1e6,
            "image_mb": case.subject.images(case.batch).nbytes / 1e6,
        }
        for case, timing, call in zip(cases, timings.values(), calls.values(), strict=True)
    ]


def _with(subject: Subject, **settings: Any) -> Subject:
    """The same with other settings and untrained weights: neither time nor memory depends on them."""
    config = replace(subject.config, model=replace(subject.config.model, **settings))
    return build_subject(config, subject.channels, subject.device, subject.model.num_classes)


def _operations(subject: Subject) -> int:
    """Of all looks at one image."""
    return count_operations(subject.model, subject.config.model.image_size, subject.channels)[-1]
