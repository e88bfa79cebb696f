"""GlimpseState: what is known while looking, the input of every policy."""

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from glimpsenet.models.backbone import Features


@dataclass
class GlimpseState:
    """The scanpath so far of a batch of images; lists have one entry a step, oldest first."""

    images: Float[Tensor, "batch channel size size"]
    affine: list[Float[Tensor, "batch 3"]] = field(default_factory=list)
    """Windows looked at."""
    features: list[Features] = field(default_factory=list)
    """Pooled features f_t and feature maps of each glimpse."""
    fused: list[Float[Tensor, "batch width"]] = field(default_factory=list)
    """Fusion's outputs o_t."""

    @property
    def step(self) -> int:
        """The step about to be taken, 1 for the first look."""
        return len(self.affine) + 1

    def before(self, step: int) -> "GlimpseState":
        """What was known when window ``step`` was chosen."""
        seen = step - 1
        return GlimpseState(self.images, self.affine[:seen], self.features[:seen], self.fused[:seen])

    def detached(self) -> "GlimpseState":
        """The same without gradients into what was seen."""
        features = [Features(f.pooled.detach(), [m.detach() for m in f.maps]) for f in self.features]
        affine, fused = [a.detach() for a in self.affine], [o.detach() for o in self.fused]
        return GlimpseState(self.images, affine, features, fused)

    def append(self, affine: Tensor, features: Features, fused: Tensor) -> None:
        """Record a step."""
        self.affine.append(affine)
        self.features.append(features)
        self.fused.append(fused)
