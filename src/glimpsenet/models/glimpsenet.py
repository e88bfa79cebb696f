"""GlimpseNet: classify an image from one glimpse at low resolution and a few windows at high resolution.

    for t = 1..T:   a_t = policy(glimpses so far)            where to look; a_1 = (1, 0, 0), the whole image
                    g_t = crop(image, a_t)                   the glimpse, g x g pixels
                    f_t = backbone(g_t)                      what is there
                    h_t = clue(f_t, a_t)                     ... and where that was
                    o_t = fusion(h_1, ..., h_t)
                    logits_t = classifier(o_t)               the answer so far; logits_T is the answer

Sources: Recurrent GlimpseNet (Supeene & Wang, Stanford), section 4.1.1; MGNet (Tan, Dong & Ma: "Multi-Glimpse
Network", BMVC 2021, arXiv 2111.02018).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from glimpsenet.models.backbone import Backbone, Features, Normalization
from glimpsenet.models.clues import SpatialClue
from glimpsenet.models.fusion import AttentionFusion, MeanFusion, NoFusion
from glimpsenet.models.initialization import kaiming_init
from glimpsenet.models.sampling import GlimpseGenerator
from glimpsenet.models.state import GlimpseState
from glimpsenet.policies.base import Policy


@dataclass
class GlimpseOutput:
    """The answer and the window of each glimpse; glimpse 1 is the first glimpse.

    Example:
        >>> model = glimpsenet.load("runs/digits")
        >>> out = model(model.normalization(torch.rand(2, 1, 80, 80)))
        >>> out.logits[:, -1].shape, out.windows.shape  # the answers; (s, tx, ty) of each glimpse
        (torch.Size([2, 10]), torch.Size([2, 4, 3]))
    """

    logits: Float[Tensor, "batch glimpse class_"]
    """The answer after each glimpse; ``logits[:, -1]`` is the final one."""
    windows: Float[Tensor, "batch glimpse 3"]
    """The windows (s, tx, ty); see ``geometry.py``."""
    features: Float[Tensor, "batch glimpse channel"]
    """The backbone's pooled features f_t."""
    auxiliary_logits: Float[Tensor, "batch later_glimpse class_"] | None
    """The auxiliary classifier's answer from each window alone (glimpses 2..T); None if there is no such classifier."""
    state: GlimpseState = field(default_factory=lambda: GlimpseState([]), repr=False)
    """The final state; ``state.before(t)`` is the state from which window t was chosen."""


class GlimpseNet(nn.Module):
    """The recurrent classifier. It takes its parts as arguments; ``create_model`` builds them.

    Args:
        generator: crops glimpses.
        backbone: glimpse -> features; shared by all glimpses.
        clue: combines features with where they were seen.
        fusion: combines the glimpses so far; the paper's is attention.
        policy: chooses the next window; a localization network as in the papers, or any other.
        num_classes: number of classes.
        num_glimpses: T, including the first glimpse.
        normalization: normalises images for this backbone: ``model.normalization(images)``.
        auxiliary: add an auxiliary classifier on each window's features alone.
        glimpse_ensemble: include it in the answers, see :meth:`answer`.

    Example:
        >>> model = glimpsenet.load("runs/digits")
        >>> images = model.normalization(torch.rand(2, 1, 80, 80))
        >>> model(images, policy=glimpsenet.RandomGlimpses((0.2, 0.5)), num_glimpses=2).windows.shape
        torch.Size([2, 2, 3])
    """

    def __init__(
        self,
        *,
        generator: GlimpseGenerator,
        backbone: Backbone,
        clue: SpatialClue,
        fusion: AttentionFusion | MeanFusion | NoFusion,
        policy: Policy,
        num_classes: int,
        num_glimpses: int = 4,
        normalization: Normalization,
        auxiliary: bool = True,
        glimpse_ensemble: bool = False,
    ):
        super().__init__()
        self.generator = generator
        self.backbone = backbone
        self.clue = clue
        self.fusion = fusion
        self.policy = policy
        self.classifier: nn.Linear = nn.Linear(clue.width, num_classes)
        self.auxiliary_classifier: nn.Linear | None = nn.Linear(backbone.channels, num_classes) if auxiliary else None
        self.normalization = normalization
        self.glimpse_ensemble = glimpse_ensemble
        self.num_classes = num_classes
        self.num_glimpses = num_glimpses
        self.compiled_glimpse: Callable[..., None] | None = None
        """:meth:`take_glimpse`, compiled; ``inference.accelerate`` sets it."""
        for classifier in filter(None, [self.classifier, self.auxiliary_classifier]):
            kaiming_init(classifier)

    def __repr__(self) -> str:
        # One line: torch's repr has one per layer, which hides the loop. `model.backbone` still prints the layers.
        parameters = sum(parameter.numel() for parameter in self.parameters())
        return (
            f"{type(self).__name__}({self.backbone.name}: {self.num_glimpses} glimpse{'s'[: self.num_glimpses - 1]} of "
            f"{self.generator.glimpse_size} px, {type(self.generator).__name__}, {type(self.policy).__name__}, "
            f"{self.num_classes} classes, {parameters:,} parameters)"
        )

    def forward(
        self,
        images: Float[Tensor, "batch channel height width"],
        *,
        policy: Policy | None = None,
        num_glimpses: int | None = None,
    ) -> GlimpseOutput:
        """Classify by glimpses.

        Args:
            images: square, normalised by ``self.normalization``.
            policy: overrides the model's policy (random, centre, oracle, injected...).
            num_glimpses: T, if not the model's.

        Raises:
            ValueError: for images of another shape, type or number of channels than the model takes.
        """
        return self.output(self.look(self.start(images), policy=policy, num_glimpses=num_glimpses))

    def start(
        self, images: Float[Tensor, "batch channel size size"], *, generator: GlimpseGenerator | None = None
    ) -> GlimpseState:
        """The state before the first glimpse.

        Args:
            images: square, normalised by ``self.normalization``.
            generator: overrides the model's generator.

        Raises:
            ValueError: for images of another shape, type or number of channels than the model takes, or if the
                generator's glimpses have another size.
        """
        self.check_images(images)
        size, other = self.generator.glimpse_size, (generator or self.generator).glimpse_size
        if other != size:
            raise ValueError(f"the model takes glimpses of {size} pixels, the generator makes {other}")
        return GlimpseState((generator or self.generator).prepare(images), generator=generator)

    def look(
        self,
        state: GlimpseState,
        *,
        policy: Policy | None = None,
        num_glimpses: int | None = None,
        seen: Mapping[int, Features] | None = None,
        after: Callable[[GlimpseState], GlimpseState | None] | None = None,
    ) -> GlimpseState:
        """Run the loop until ``num_glimpses`` are taken.

        Args:
            state: from :meth:`start`, or from a loop that ended early.
            policy: overrides the model's policy.
            num_glimpses: T, if not the model's.
            seen: features already known, by glimpse; the others are computed.
            after: called after each glimpse; the loop continues with the state it returns, or stops at None.

        Returns:
            The state after the last glimpse.
        """
        take_glimpse = self.compiled_glimpse or self.take_glimpse
        for glimpse in range(state.glimpse, (num_glimpses or self.num_glimpses) + 1):
            take_glimpse(state, policy, None if seen is None else seen.get(glimpse))
            if after is not None:
                left = after(state)
                if left is None:
                    break
                state = left
        return state

    def take_glimpse(self, state: GlimpseState, policy: Policy | None = None, features: Features | None = None) -> None:
        """Take one glimpse and record it in ``state``.

        Args:
            state: the glimpses so far.
            policy: overrides the model's policy.
            features: features of the glimpse, if already known.
        """
        window = (self.policy if policy is None else policy)(state)
        self.integrate(state, window, self.see(state, window) if features is None else features)

    def see(self, state: GlimpseState, window: Float[Tensor, "batch 3"]) -> Features:
        """The backbone's features of the next glimpse, cropped at ``window``."""
        crop = (state.generator or self.generator)(state.prepared, window)
        return self.backbone(crop, first_glimpse=state.glimpse == 1)

    def integrate(self, state: GlimpseState, window: Float[Tensor, "batch 3"], features: Features) -> None:
        """Fuse a glimpse with the earlier ones, answer, and record everything in ``state``."""
        fused, memory = self.fusion(self.clue(features.pooled, window), state.memory)
        logits = self.answer(fused, [*(seen.pooled for seen in state.features), features.pooled])
        state.append(window, features, fused, memory, logits)

    def output(self, state: GlimpseState) -> GlimpseOutput:
        """The output for a state that the loop returned."""
        pooled = torch.stack([features.pooled for features in state.features], 1)
        return GlimpseOutput(
            logits=torch.stack(state.logits, 1),
            windows=torch.stack(state.windows, 1),
            features=pooled,
            auxiliary_logits=None if self.auxiliary_classifier is None else self.auxiliary_classifier(pooled[:, 1:]),
            state=state,
        )

    def answer(
        self, fused: Float[Tensor, "batch width"], pooled: Sequence[Float[Tensor, "batch channel"]]
    ) -> Float[Tensor, "batch class_"]:
        """Logits from the newest o_t; f_1..f_t matter only to the glimpse ensemble, outside training.

        The glimpse ensemble averages the log-probabilities of the classifier and those of the auxiliary classifier for
        each window so far.
        """
        logits = self.classifier(fused)
        if not self.glimpse_ensemble or self.training or len(pooled) == 1:
            return logits
        assert self.auxiliary_classifier is not None
        alone = self.auxiliary_classifier(torch.stack(list(pooled[1:]), 1))
        return torch.cat([logits[:, None], alone], 1).log_softmax(-1).mean(1)

    def crops(
        self, images: Float[Tensor, "batch channel size size"], windows: Float[Tensor, "batch glimpse 3"]
    ) -> Float[Tensor, "batch glimpse channel g g"]:
        """The crops at ``windows`` (from a ``GlimpseOutput``)."""
        prepared = self.generator.prepare(images)
        return torch.stack([self.generator(prepared, window) for window in windows.unbind(1)], 1)

    def check_images(self, images: Tensor) -> None:
        """Reject images that the model cannot take.

        Raises:
            ValueError: for images of another shape, type or number of channels than the model takes.
        """
        shape, smallest, channels = list(images.shape), self.generator.glimpse_size, len(self.normalization.mean)
        if images.ndim != 4 or images.shape[1] != channels:
            raise ValueError(f"images must be [batch, {channels}, size, size] for this model; got {shape}")
        if images.shape[-1] != images.shape[-2]:
            raise ValueError(f"images must be square, [batch, channel, size, size]; got {shape}: resize or pad them")
        if images.shape[-1] < smallest:
            raise ValueError(f"images of shape {shape} are smaller than a glimpse, {smallest} x {smallest}")
        if not images.is_floating_point():
            raise ValueError(f"images of type {images.dtype} are not normalised: pass model.normalization(images)")
        if images.dtype != self.classifier.weight.dtype and not torch.is_autocast_enabled(images.device.type):
            raise ValueError(f"images of type {images.dtype} do not fit the model's {self.classifier.weight.dtype}")
