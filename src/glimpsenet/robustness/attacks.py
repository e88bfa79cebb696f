"""Attacks: the worst images within eps of given ones, eps the largest change of a pixel (l-infinity).

    x <- clip(x + step sign(dL/dx)),   clip to [x0 - eps, x0 + eps] and to valid pixels       projected gradient descent

Two protocols. MGNet's, for comparison: on normalised tensors (so eps is in units of the normalisation's standard
deviation), no clipping to valid pixels, no random start, and with the gradient factor of 0.02, which hides where the
windows could be moved. And a sound one: in pixel space within 0..1, with random starts and several restarts, without
the factor.

A policy that takes the best of several windows has no gradient with respect to its choice. :func:`score_loss` attacks
it through its probabilities: it draws windows and makes those that help the attack likelier (the score function
estimator, Williams 1992). AutoAttack and the Square attack, which only queries answers, come from pyautoattack.

Sources: Madry et al. 2018 (PGD); Croce & Hein 2020 (AutoAttack); Andriushchenko et al. 2020 (Square); Carlini et al.
2019 and Tramer et al. 2020 on sound evaluation.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from glimpsenet.errors import needs_extra
from glimpsenet.models.glimpsenet import GlimpseNet
from glimpsenet.policies.localization import Localization

Loss = Callable[[Tensor, Tensor], Tensor]
"""(images ``[batch, ...]``, labels ``[batch]``) -> ``[batch]``: the loss that the attack raises."""


class Answers(nn.Module):
    """A classifier for attacks: images -> logits after ``num_glimpses``, in evaluation mode with fixed weights.

    Args:
        model: model to copy.
        num_glimpses: glimpses after which the answer is attacked.
        normalized: whether images are already normalised (MGNet's protocol) rather than 0..1.
        gradient_factor: factor on gradients into the localization network; the model's if None.
    """

    def __init__(
        self,
        model: GlimpseNet,
        num_glimpses: int,
        *,
        normalized: bool = False,
        gradient_factor: float | None = 1.0,
    ):
        super().__init__()
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.num_glimpses, self.normalized = num_glimpses, normalized
        for part in self.model.modules():
            if isinstance(part, Localization) and gradient_factor is not None:
                part.gradient_factor = gradient_factor

    def forward(self, images: Float[Tensor, "batch channel size size"]) -> Float[Tensor, "batch class_"]:
        """Logits of the answer."""
        return self.every_answer(images)[:, -1]

    def every_answer(self, images: Float[Tensor, "batch channel size size"]) -> Float[Tensor, "batch glimpse class_"]:
        """Logits after each glimpse."""
        images = images if self.normalized else self.model.normalization(images)
        return self.model(images, num_glimpses=self.num_glimpses).logits

    @torch.no_grad()
    def right(self, images: Tensor, labels: Int[Tensor, "batch"]) -> Bool[Tensor, "batch"]:
        """Whether each answer is right."""
        return self(images).argmax(-1) == labels


def answer_loss(answers: Answers) -> Loss:
    """Cross-entropy of the answer."""
    return lambda images, labels: F.cross_entropy(answers(images), labels, reduction="none")


def score_loss(answers: Answers, draws: int = 4) -> Loss:
    """Expected cross-entropy over windows drawn from the policy, with the gradient through their probabilities.

        d/dx E[CE] = E[d CE/dx + (CE - baseline) d/dx sum_t log p(window_t)],   baseline: the mean of the other draws

    Args:
        answers: classifier with a stochastic policy.
        draws: scanpaths per image, 2 or more.

    Raises:
        ValueError: for a policy without probabilities, or too few draws.
    """
    own = copy.deepcopy(answers)
    model, policy = own.model, own.model.policy
    if not policy.stochastic or draws < 2:
        raise ValueError(f"needs a stochastic policy and 2 draws or more; got {policy} and {draws}")
    policy.train()  # samples instead of taking the likeliest
    policy.stop_gradient = False

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        many, targets = images.repeat_interleave(draws, 0), labels.repeat_interleave(draws)
        output = model(model.normalization(many), num_glimpses=own.num_glimpses)
        wrong = F.cross_entropy(output.logits[:, -1], targets, reduction="none").view(-1, draws)
        total = wrong.mean(1)
        if own.num_glimpses > 1:
            later = range(2, own.num_glimpses + 1)
            likely = [
                policy.distribution(output.state.before(t)).log_probability(output.windows[:, t - 1]) for t in later
            ]
            others = (wrong.sum(1, keepdim=True) - wrong) / (draws - 1)
            total = total + ((wrong - others).detach() * torch.stack(likely).sum(0).view(-1, draws)).mean(1)
        return total

    return loss


@dataclass(frozen=True, kw_only=True)
class PGD:
    """Settings of projected gradient descent; eps and step are in the units of the images."""

    eps: float
    step: float
    steps: int
    restarts: int = 1
    random_start: bool = True
    valid: tuple[float, float] | None = (0.0, 1.0)
    """Range of valid pixels; None for no limit."""


MGNET = PGD(eps=4 / 255, step=1 / 255, steps=10, random_start=False, valid=None)
"""Attack normalised tensors."""


def pgd(
    answers: Answers,
    loss: Loss,
    images: Tensor,
    labels: Int[Tensor, "batch"],
    settings: PGD,
    generator: torch.Generator,
) -> Tensor:
    """The images after the attack: misclassified if it succeeded, else the last try.

    Args:
        answers: classifier that decides whether a try succeeds.
        loss: loss to raise; of the same model, or of another one for transfer attacks.
        images: images in the units of ``settings``.
        labels: true classes.
        settings: see :class:`PGD`.
        generator: random generator for the starts, on the CPU.
    """
    result = images.clone()
    left = answers.right(images, labels)
    for _ in range(settings.restarts):
        if not left.any():
            break
        tried = _descend(loss, images[left], labels[left], settings, generator)
        result[left] = tried
        left = left.clone().masked_scatter(left, answers.right(tried, labels[left]))
    return result


def _descend(loss: Loss, images: Tensor, labels: Tensor, settings: PGD, generator: torch.Generator) -> Tensor:
    def project(tried: Tensor) -> Tensor:
        inside = torch.minimum(torch.maximum(tried, images - settings.eps), images + settings.eps)
        return inside if settings.valid is None else inside.clamp(*settings.valid)

    tried = images
    if settings.random_start:
        noise = 2 * torch.rand(images.shape, generator=generator).to(images) - 1
        tried = project(images + settings.eps * noise)
    for _ in range(settings.steps):
        tried = tried.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(tried, labels).sum(), tried)
        tried = project(tried.detach() + settings.step * gradient.sign())
    return tried.detach()


AutoAttackPart = Literal["apgd-ce", "apgd-t", "fab-t", "fab", "square"]


def white_box_parts(num_classes: int) -> list[AutoAttackPart]:
    """AutoAttack's white-box attacks; the targeted ones need four classes."""
    return ["apgd-ce", "apgd-t", "fab-t"] if num_classes > 3 else ["apgd-ce", "fab"]


def import_auto_attack() -> Any:
    """Import AutoAttack's class.

    Raises:
        UserError: if it is not installed or does not load.
    """
    with needs_extra("AutoAttack", "robustness"):
        from pyautoattack import AutoAttack
    return AutoAttack


def auto_attack(
    answers: Answers,
    images: Tensor,
    labels: Int[Tensor, "batch"],
    parts: list[AutoAttackPart],
    *,
    eps: float,
    queries: int = 5000,
    targets: int = 9,
    batch_size: int = 50,
    seed: int = 0,
) -> Tensor:
    """Run parts of AutoAttack in order, each on the images that the earlier ones left; images are 0..1.

    Args:
        answers: classifier of images in 0..1.
        images: float, 0..1.
        labels: true classes.
        parts: attacks to run; ``square`` only queries answers.
        eps: largest change of a pixel.
        queries: queries per image for Square.
        targets: target classes of the targeted attacks, likeliest first.
        batch_size: images per batch.
        seed: seed for everything random.

    Raises:
        UserError: if pyautoattack is not installed.
    """
    attack: Any = import_auto_attack()(
        answers, attacks=list(parts), device=images.device, eps=eps, seed=seed, version="custom"
    )
    targets = min(targets, answers.model.num_classes - 1)
    attack.apgd.n_restarts = attack.fab.n_restarts = 1
    attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = targets
    attack.square.n_queries = queries
    with torch.random.fork_rng(devices=[]):
        attacked, _ = attack.run_standard_evaluation(images, labels, batch_size=batch_size)
    return attacked
