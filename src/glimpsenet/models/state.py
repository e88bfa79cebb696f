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

    def append(self, affine: Tensor, features: Features, fused: Tensor) -> None:
        """Record a step."""
        self.affine.append(affine)
        self.features.append(features)
        self.fused.append(fused)
