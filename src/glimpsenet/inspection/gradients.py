"""The gradient signal that the localization network receives: the derivative of a loss by one window.

    dL / d(s, tx, ty)_t,   all other windows fixed, without the factor of 0.02

In training, this gradient reaches the network's output for glimpse t, before the gradient factor is applied. The loss
depends on the output in no other way: the spatial clue is detached. Source: Supeene & Wang, sections 4.2 and 5.2.

For each candidate window, only its own glimpse is recomputed: the features of the others are fixed, and the fusion of
tokens is cheap. A sweep of 200 points is one batch of 200 glimpses.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from glimpsenet.inspection.figures import as_shown
from glimpsenet.losses import glimpse_losses
from glimpsenet.models.backbone import Features
from glimpsenet.models.glimpsenet import GlimpseNet, GlimpseOutput
from glimpsenet.models.sampling import GlimpseGenerator
from glimpsenet.models.state import GlimpseState
from glimpsenet.policies.base import Policy
from glimpsenet.policies.baselines import FixedGlimpses

WindowLoss = Callable[[GlimpseOutput, Tensor, int], Float[Tensor, "candidate"]]
"""(output, labels, glimpse) -> loss of each candidate; ``glimpse`` counts from 1."""


def last_loss(output: GlimpseOutput, labels: Tensor, glimpse: int) -> Float[Tensor, "candidate"]:
    """Cross-entropy of the answer after the last glimpse."""
    return glimpse_losses(output.logits[:, -1:], labels)[:, 0]


def own_loss(output: GlimpseOutput, labels: Tensor, glimpse: int) -> Float[Tensor, "candidate"]:
    """Cross-entropy of the answer right after ``glimpse``."""
    return glimpse_losses(output.logits[:, glimpse - 1 : glimpse], labels)[:, 0]


def auxiliary_loss(output: GlimpseOutput, labels: Tensor, glimpse: int) -> Float[Tensor, "candidate"]:
    """Cross-entropy of the auxiliary classifier on ``glimpse`` alone.

    Raises:
        ValueError: for a model without auxiliary classifier, and for the first glimpse, which it does not take.
    """
    if output.auxiliary_logits is None:
        raise ValueError("this model has no auxiliary classifier, so there is no auxiliary loss to differentiate")
    if glimpse == 1:
        raise ValueError("the auxiliary classifier does not see the first glimpse; choose glimpse 2 or later")
    return glimpse_losses(output.auxiliary_logits[:, glimpse - 2 : glimpse - 1], labels)[:, 0]


def total_loss(auxiliary_weight: float) -> WindowLoss:
    """The training loss with this alpha, for each candidate."""

    def loss(output: GlimpseOutput, labels: Tensor, glimpse: int) -> Float[Tensor, "candidate"]:
        main = glimpse_losses(output.logits, labels).mean(1)
        if output.auxiliary_logits is None or output.auxiliary_logits.shape[1] == 0:
            return main
        auxiliary = glimpse_losses(output.auxiliary_logits, labels).mean(1)
        return (1 - auxiliary_weight) * main + auxiliary_weight * auxiliary

    return loss


def by_name(name: str, auxiliary_weight: float) -> WindowLoss:
    """The loss with this name on the command line: last, own, auxiliary or total (with alpha)."""
    return {
        "last": last_loss,
        "own": own_loss,
        "auxiliary": auxiliary_loss,
        "total": total_loss(auxiliary_weight),
    }[name]


@dataclass(frozen=True)
class Scene:
    """One image with its label and the windows to measure around."""

    model: GlimpseNet
    image: Float[Tensor, "channel size size"]
    """Normalised."""
    shown: Float[Tensor, "channel size size"]
    """The same image for drawing, 0..1, on the CPU."""
    label: int
    windows: Float[Tensor, "glimpse 3"]
    """The model's windows."""
    features: Float[Tensor, "glimpse channel"]
    """The features of these glimpses."""
    logits: Float[Tensor, "glimpse class_"]
    generator: GlimpseGenerator | None = None
    """Overrides the model's generator."""

    @property
    def num_glimpses(self) -> int:
        """T."""
        return len(self.windows)

    @property
    def image_size(self) -> int:
        """Side of the image in pixels."""
        return self.image.shape[-1]


def observe(
    model: GlimpseNet,
    image: Tensor,
    label: int | None = None,
    *,
    policy: Policy | None = None,
    num_glimpses: int | None = None,
    generator: GlimpseGenerator | None = None,
) -> Scene:
    """Run the model on one image, in evaluation mode.

    Args:
        model: the model.
        image: ``[channel, size, size]``, uint8 or 0..1; not normalised.
        label: the true class; the predicted one if None.
        policy: overrides the model's policy.
        num_glimpses: T, if not the model's.
        generator: overrides the model's generator.

    Raises:
        ValueError: if the label is not a class of the model, or the generator's glimpses have another size.
    """
    if label is not None and not 0 <= label < model.num_classes:
        raise ValueError(
            f"class {label} is out of range: the model has {model.num_classes} classes, 0 to {model.num_classes - 1}"
        )
    model.eval()
    normalized = model.normalization(image[None].to(model.classifier.weight.device))
    with torch.no_grad():
        state = model.start(normalized, generator=generator)
        output = model.output(model.look(state, policy=policy, num_glimpses=num_glimpses))
    answer = int(output.logits[0, -1].argmax()) if label is None else label
    seen = output.windows[0], output.features[0], output.logits[0]
    return Scene(model, normalized[0], as_shown(image), answer, *seen, generator)


def probe(
    scene: Scene, glimpse: int, candidates: Float[Tensor, "candidate 3"], loss: WindowLoss = last_loss, chunk: int = 256
) -> tuple[Float[Tensor, "candidate"], Float[Tensor, "candidate 3"]]:
    """Loss, and its gradient in (s, tx, ty), with each of ``candidates`` in place of the window of ``glimpse``.

    Args:
        scene: from :func:`observe`.
        glimpse: which window is moved, 1 (the first glimpse) to T; the others stay.
        candidates: windows; they may extend outside the image.
        loss: loss to differentiate.
        chunk: candidates per batch.

    Raises:
        ValueError: if the model does not take this glimpse.
    """
    check_glimpse(scene, glimpse)
    losses, gradients = [], []
    with torch.enable_grad():
        for part in candidates.to(scene.image).split(chunk):
            window = part.detach().clone().requires_grad_()
            values = loss(
                _replay(scene, glimpse, window), torch.full((len(part),), scene.label).to(window.device), glimpse
            )
            (gradient,) = torch.autograd.grad(values.sum(), window)
            losses.append(values.detach())
            gradients.append(gradient)
    return torch.cat(losses), torch.cat(gradients)


def check_glimpse(scene: Scene, glimpse: int) -> None:
    """Check that the model takes a glimpse.

    Raises:
        ValueError: if there is no such glimpse.
    """
    if not 1 <= glimpse <= scene.num_glimpses:
        raise ValueError(f"no glimpse {glimpse}: the model takes glimpses 1 to {scene.num_glimpses}")


def _replay(scene: Scene, glimpse: int, window: Float[Tensor, "candidate 3"]) -> GlimpseOutput:
    """The output with ``window`` at ``glimpse``; all other windows and their features stay."""
    model, count = scene.model, len(window)
    generator = scene.generator or model.generator
    prepared = [level.expand(count, -1, -1, -1) for level in generator.prepare(scene.image[None])]
    looked = dict(enumerate(scene.windows.expand(count, -1, -1).unbind(1), 1))
    seen = {t: Features(known.expand(count, -1), []) for t, known in enumerate(scene.features, 1) if t != glimpse}
    policy = FixedGlimpses({**looked, glimpse: window}, model.policy)
    return model.output(
        model.look(
            GlimpseState(prepared, generator=generator), policy=policy, num_glimpses=scene.num_glimpses, seen=seen
        )
    )
