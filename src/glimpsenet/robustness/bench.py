"""``bench robustness``: accuracy under attacks and corruptions, of a glimpse model and plain backbones.

    robust accuracy = share of images whose answer is right and stays right under every attack tried

Each number of glimpses is attacked separately: the attack targets the answer after that many. Other attacks may find
more, so accuracies under attack are upper bounds. Checks for masked gradients show how far to trust them (Athalye,
Carlini & Wagner 2018): attacks without gradients, or with another model's, must not beat the white-box ones, and an
unbounded attack must leave nothing right.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from glimpsenet.data.finding import LeftOut, find_images
from glimpsenet.data.folder import PhotoDataset
from glimpsenet.data.loading import open_data
from glimpsenet.data.sample import GlimpseDataset, collate
from glimpsenet.errors import MissingDataError, UnreadableImageError, UserError
from glimpsenet.intervals import accuracy_with_interval, paired_difference
from glimpsenet.models.glimpsenet import GlimpseNet
from glimpsenet.robustness.attacks import (
    MGNET,
    PGD,
    Answers,
    answer_loss,
    auto_attack,
    import_auto_attack,
    pgd,
    score_loss,
    white_box_parts,
)
from glimpsenet.robustness.config import Attack, Protocol
from glimpsenet.robustness.corruptions import corrupt, import_corruptions
from glimpsenet.runs import Run

WHITE_BOX = ("pgd", "score", "autoattack")
"""Attacks that black-box or transferred ones must not beat."""
TRANSFER = "transfer"


@dataclass(frozen=True)
class Images:
    """The images on which all models are tested."""

    pixels: Float[Tensor, "image channel size size"]
    """0..1."""
    labels: Int[Tensor, "image"]

    def batches(self, size: int) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Batches of (place of the first image, pixels, labels)."""
        for first in range(0, len(self.labels), size):
            yield first, self.pixels[first : first + size], self.labels[first : first + size]


@dataclass
class Subject:
    """A model and which answers are right: condition -> ``[image]``, or ``[image, glimpse]`` for corruptions."""

    name: str
    model: GlimpseNet
    right: dict[tuple[str, int], Bool[Tensor, "image"]] = field(default_factory=dict)
    corrupted: dict[tuple[str, int], Bool[Tensor, "image glimpse"]] = field(default_factory=dict)
    seconds: dict[tuple[str, int], float] = field(default_factory=dict)

    @property
    def counts(self) -> range:
        """Numbers of glimpses to attack."""
        return range(1, self.model.num_glimpses + 1)


def sound_pgd(protocol: Protocol) -> PGD:
    """PGD in pixel space; its steps reach any point of the range within ten."""
    eps = protocol.eps / 255
    return PGD(eps=eps, step=eps / 4, steps=protocol.steps, restarts=protocol.restarts)


def draw_images(dataset: GlimpseDataset, count: int, seed: int, device: torch.device) -> Images:
    """Draw ``count`` images of a dataset (all if it has fewer), without repetition.

    Raises:
        UserError: for an unreadable image.
    """
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))[:count]
    batch = collate([dataset[0, int(place)] for place in order])
    if batch.problems:
        raise UnreadableImageError(f"{batch.problems[0]}; remove the file")
    pixels = batch.images.float() / 255 if batch.images.dtype == torch.uint8 else batch.images
    return Images(pixels.to(device), batch.labels.to(device))


def bench_robustness(
    run: Run,
    *,
    plain: Sequence[Run] = (),
    data: Path | None = None,
    protocol: Protocol | None = None,
    imagenet_c: Path | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Attack and corrupt; all models see the same images.

    Args:
        run: run of the glimpse model.
        plain: runs with one glimpse of the whole image, trained on the same classes.
        data: image folder with test/CLASS or, failing that, val/CLASS; the run's data if None.
        protocol: what to test; everything if None.
        imagenet_c: folder CORRUPTION/SEVERITY/CLASS of corrupted images to use; computed if None.
        tell: called with progress messages.

    Raises:
        UserError: if models and data do not match, or the extra ``robustness`` is needed but not installed.
    """
    protocol = protocol or Protocol()
    _check_possible(protocol, imagenet_c)
    _check_alike(run, plain)
    config = run.config if data is None else run.config.with_data(data)
    split, held_out = open_data(config, run.classes, run.channels).held_out()
    chosen = draw_images(held_out, protocol.images, protocol.seed, run.model.classifier.weight.device)
    subjects = [Subject(str(one.folder), one.model) for one in (run, *plain)]
    for subject in subjects:
        _try_attacks(subject, chosen, protocol, tell)
    transferred = _transfers(subjects, chosen, protocol)
    _try_corruptions(subjects, chosen, protocol, None if imagenet_c is None else (imagenet_c, run), tell)
    names = ("steps", "restarts", "queries", "targets", "seed")
    return {
        "images": len(chosen.labels),
        "split": split,
        "eps": protocol.eps / 255,
        "protocol": {
            **{name: getattr(protocol, name) for name in names},
            "corrupted_images": "made of the images" if imagenet_c is None else str(imagenet_c),
        },
        "models": [_describe(subject, protocol) for subject in subjects],
        "differences": [_difference(subjects[0], other) for other in subjects[1:]],
        "masking": _check_masking(subjects, transferred),
    }


def _check_alike(run: Run, plain: Sequence[Run]) -> None:
    """Reject runs that cannot take the same images."""
    for one in plain:
        size, own = one.config.model.image_size, run.config.model.image_size
        if (one.classes, one.channels, size) != (run.classes, run.channels, own):
            raise UserError(f"{one.folder} and {run.folder} differ in classes, channels or image size")


def _try_attacks(subject: Subject, images: Images, protocol: Protocol, tell: Callable[[str], None]) -> None:
    """Run each attack on the answer after each number of glimpses that it applies to."""
    for count in subject.counts:
        _clean(subject, count, images, protocol)
        for attack in protocol.attacks:
            if _applies(attack, subject, count):
                _attack(subject, attack, count, images, protocol)
                tell(_line(subject, attack, count))


def _try_corruptions(
    subjects: Sequence[Subject],
    images: Images,
    protocol: Protocol,
    ready: tuple[Path, Run] | None,
    tell: Callable[[str], None],
) -> None:
    """Apply each corruption at each severity, or draw corrupted images from a folder."""
    left_out, device = LeftOut(), images.pixels.device
    for name, severity in _conditions(protocol):
        folder = None if ready is None else _open_ready(ready[0] / name / str(severity), ready[1], left_out)
        for subject in subjects:
            made = _made(images, name, severity, protocol) if folder is None else _drawn(folder, protocol, device)
            subject.corrupted[name, severity] = _right_after_each_glimpse(subject.model, made)
        rates = (f"{subject.corrupted[name, severity].double().mean(0)[-1]:.3f}" for subject in subjects)
        tell(f"{name} {severity}: {'  '.join(rates)}")
    left_out.warn()


def _check_possible(protocol: Protocol, imagenet_c: Path | None) -> None:
    """Check requirements before the first hour, not after it."""
    if not {"autoattack", "square"}.isdisjoint(protocol.attacks):
        import_auto_attack()
    if imagenet_c is None and protocol.corruptions:
        import_corruptions()
    for name, severity in _conditions(protocol):
        folder = None if imagenet_c is None else imagenet_c / name / str(severity)
        if folder is not None and not folder.is_dir():
            raise MissingDataError(f"no folder {folder}; ImageNet-C is CORRUPTION/SEVERITY/CLASS")


def _conditions(protocol: Protocol) -> list[tuple[str, int]]:
    return [(name, severity) for name in protocol.corruptions for severity in protocol.severities]


def _applies(attack: Attack, subject: Subject, count: int) -> bool:
    """Costly attacks and checks target only the answer after all glimpses; score attacks need a stochastic policy."""
    if attack == "score":
        return subject.model.policy.stochastic and count == subject.model.num_glimpses > 1
    return attack in ("mgnet", "pgd") or count == subject.model.num_glimpses


def _clean(subject: Subject, count: int, images: Images, protocol: Protocol) -> None:
    answers = Answers(subject.model, count)
    rights = [answers.right(pixels, labels) for _, pixels, labels in images.batches(protocol.batch_size)]
    subject.right["clean", count] = torch.cat(rights)


def _attack(subject: Subject, attack: Attack, count: int, images: Images, protocol: Protocol) -> None:
    """Run one attack, and record which answers stay right."""
    begun = time.monotonic()
    answers = Answers(subject.model, count)
    generator = torch.Generator().manual_seed(protocol.seed)
    right = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(protocol.seed)
        for _, pixels, labels in images.batches(protocol.batch_size):
            if attack == "mgnet":
                answers = Answers(subject.model, count, normalized=True, gradient_factor=None)
                pixels = subject.model.normalization(pixels)
                attacked = pgd(answers, answer_loss(answers), pixels, labels, MGNET, generator)
            elif attack == "autoattack":
                parts = white_box_parts(subject.model.num_classes)
                attacked = _auto(answers, pixels, labels, parts, protocol)
            elif attack == "square":
                attacked = _auto(answers, pixels, labels, ["square"], protocol)
            else:
                loss = score_loss(answers) if attack == "score" else answer_loss(answers)
                settings = sound_pgd(protocol)
                if attack == "unbounded":
                    settings = replace(settings, eps=1.0, step=8 / 255)
                attacked = pgd(answers, loss, pixels, labels, settings, generator)
            right.append(answers.right(attacked, labels))
    subject.right[attack, count] = torch.cat(right)
    subject.seconds[attack, count] = time.monotonic() - begun


def _auto(answers: Answers, pixels: Tensor, labels: Tensor, parts: Any, protocol: Protocol) -> Tensor:
    return auto_attack(
        answers,
        pixels,
        labels,
        parts,
        eps=protocol.eps / 255,
        queries=protocol.queries,
        targets=protocol.targets,
        batch_size=protocol.batch_size,
        seed=protocol.seed,
    )


def _transfers(
    subjects: Sequence[Subject], images: Images, protocol: Protocol
) -> list[tuple[Subject, Subject, Tensor]]:
    """(source model, target model, answers that stay right) for all pairs of models."""
    found = []
    for source in subjects if "pgd" in protocol.attacks else ():
        answers = Answers(source.model, source.model.num_glimpses)
        generator = torch.Generator().manual_seed(protocol.seed)
        settings = replace(sound_pgd(protocol), restarts=1)
        for target in subjects:
            if target is source:
                continue
            tried = Answers(target.model, target.model.num_glimpses)
            right = [
                tried.right(pgd(answers, answer_loss(answers), pixels, labels, settings, generator), labels)
                & tried.right(pixels, labels)
                for _, pixels, labels in images.batches(protocol.batch_size)
            ]
            found.append((source, target, torch.cat(right)))
    return found


def _made(images: Images, name: str, severity: int, protocol: Protocol) -> Iterator[tuple[Tensor, Tensor]]:
    for first, pixels, labels in images.batches(protocol.batch_size):
        yield corrupt(pixels, name, severity, first=first, seed=protocol.seed), labels


def _open_ready(folder: Path, run: Run, left_out: LeftOut) -> PhotoDataset:
    """Images of a folder CORRUPTION/SEVERITY/CLASS, processed like the run's validation images."""
    files = find_images(folder, left_out=left_out)
    places = {each: place for place, each in enumerate(run.classes)}
    if strange := sorted({file.relative_to(folder).parts[0] for file in files} - places.keys()):
        raise UserError(f"class '{strange[0]}' in {folder} is not one of the model's; remove it")
    labels = [places[file.relative_to(folder).parts[0]] for file in files]
    photos = run.config.photos
    transform = photos.augmentation.evaluation_transform(run.config.model.image_size)
    return PhotoDataset(files, labels, transform, channels=run.channels, value_range=photos.value_range)


def _drawn(ready: PhotoDataset, protocol: Protocol, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    drawn = draw_images(ready, protocol.images, protocol.seed, device)
    yield from ((pixels, truth) for _, pixels, truth in drawn.batches(protocol.batch_size))


@torch.no_grad()
def _right_after_each_glimpse(
    model: GlimpseNet, batches: Iterable[tuple[Tensor, Tensor]]
) -> Bool[Tensor, "image glimpse"]:
    answers = Answers(model, model.num_glimpses)
    return torch.cat([answers.every_answer(pixels).argmax(-1) == labels[:, None] for pixels, labels in batches])


def _describe(subject: Subject, protocol: Protocol) -> dict[str, Any]:
    """A model's part of the result."""
    last = subject.model.num_glimpses
    within = [name for name in ("pgd", "score", "autoattack", "square") if (name, last) in subject.right]
    worst = subject.right["clean", last].clone()
    for name in within:
        worst &= subject.right[name, last]
    corrupted = torch.stack(list(subject.corrupted.values())) if subject.corrupted else None
    return {
        "model": subject.name,
        "glimpses": last,
        "clean": [accuracy_with_interval(subject.right["clean", count]) for count in subject.counts],
        "attacks": [
            {
                "attack": name,
                "glimpses": count,
                **accuracy_with_interval(right),
                "seconds": subject.seconds[name, count],
            }
            for (name, count), right in subject.right.items()
            if name != "clean"
        ],
        "worst_case": {"of": within, **accuracy_with_interval(worst)} if within else None,
        "corruptions": [
            {
                "corruption": name,
                "severity": severity,
                "accuracy": right.double().mean(0).tolist(),
                "interval": accuracy_with_interval(right[:, -1])["interval"],
            }
            for (name, severity), right in subject.corrupted.items()
        ],
        "mean_under_corruptions": None if corrupted is None else corrupted.double().mean((0, 1)).tolist(),
    }


def _difference(one: Subject, other: Subject) -> dict[str, Any]:
    """By how much the first model is better, in the answer after all glimpses, on the same images."""
    last, others_last = one.model.num_glimpses, other.model.num_glimpses
    attacks = [name for name, count in one.right if count == last and (name, others_last) in other.right]
    result: dict[str, Any] = {
        "model": one.name,
        "than": other.name,
        **{
            name: paired_difference([one.right[name, last].double()], [other.right[name, others_last].double()])
            for name in attacks
        },
    }
    if one.corrupted:
        mine, theirs = ([right[:, -1].double() for right in subject.corrupted.values()] for subject in (one, other))
        result["corruptions"] = paired_difference(mine, theirs)
    return result


def _check_masking(
    subjects: Sequence[Subject], transferred: Iterable[tuple[Subject, Subject, Tensor]]
) -> list[dict[str, Any]]:
    """Checks: accuracies that must not be below the white-box one, and 0 under the unbounded attack."""
    checks: list[dict[str, Any]] = []
    for subject in subjects:
        last = subject.model.num_glimpses
        tried = [name for name in WHITE_BOX if (name, last) in subject.right]
        if not tried:
            continue
        white = torch.stack([subject.right[name, last] for name in tried]).all(0).double().mean().item()

        def add(check: str, accuracy: float, passed: bool, subject: Subject = subject, white: float = white) -> None:
            told = {"model": subject.name, "check": check, "white_box": white, "accuracy": accuracy}
            checks.append({**told, "passed": passed})

        if ("square", last) in subject.right:
            accuracy = subject.right["square", last].double().mean().item()
            add("black box (Square) must not beat it", accuracy, accuracy >= white)
        for source, target, right in transferred:
            if target is subject:
                accuracy = right.double().mean().item()
                add(f"transfer from {source.name} must not beat it", accuracy, accuracy >= white)
        if ("unbounded", last) in subject.right:
            accuracy = subject.right["unbounded", last].double().mean().item()
            add("without bound, nothing is right", accuracy, accuracy == 0)
    return checks


def _line(subject: Subject, attack: str, count: int) -> str:
    accuracy, seconds = subject.right[attack, count].double().mean(), subject.seconds[attack, count]
    return f"{subject.name}, {count} glimpses, {attack}: accuracy {accuracy:.3f} ({seconds:.0f} s)"
