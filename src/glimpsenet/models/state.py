"""GlimpseState: the record of the glimpses so far. Policies read it; each glimpse adds to it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from glimpsenet.models.backbone import Features
from glimpsenet.models.fusion import Memory
from glimpsenet.models.sampling import GlimpseGenerator, Prepared


@dataclass
class GlimpseState:
    """The glimpses so far for a batch of images; lists have one entry per glimpse, oldest first."""

    prepared: Prepared
    """What all glimpses of the images share, from the generator; the first entry is the images."""
    windows: list[Float[Tensor, "batch 3"]] = field(default_factory=list)
    """Windows (s, tx, ty) of the glimpses."""
    features: list[Features] = field(default_factory=list)
    """Pooled features f_t and feature maps of each glimpse."""
    fused: list[Float[Tensor, "batch width"]] = field(default_factory=list)
    """The fusion's outputs o_t."""
    memories: list[Memory | None] = field(default_factory=list)
    """The fusion's memory after each glimpse."""
    logits: list[Float[Tensor, "batch class_"]] = field(default_factory=list)
    """Logits after each glimpse."""
    generator: GlimpseGenerator | None = None
    """Overrides the model's generator."""

    @property
    def images(self) -> Float[Tensor, "batch channel size size"]:
        """The normalised images."""
        return self.prepared[0]

    @property
    def glimpse(self) -> int:
        """The glimpse to be taken next, 1 for the first."""
        return len(self.windows) + 1

    @property
    def memory(self) -> Memory | None:
        """The fusion's current memory; None before the first glimpse."""
        return self.memories[-1] if self.memories else None

    def append(
        self,
        window: Float[Tensor, "batch 3"],
        features: Features,
        fused: Float[Tensor, "batch width"],
        memory: Memory | None = None,
        logits: Float[Tensor, "batch class_"] | None = None,
    ) -> None:
        """Record a glimpse; ``logits`` is None if no answer was computed."""
        self.windows.append(window)
        self.features.append(features)
        self.fused.append(fused)
        self.memories.append(memory)
        if logits is not None:
            self.logits.append(logits)

    def before(self, glimpse: int) -> "GlimpseState":
        """The state from which window ``glimpse`` was chosen."""
        seen = slice(glimpse - 1)
        names = ("windows", "features", "fused", "memories", "logits")
        return replace(self, **{name: getattr(self, name)[seen] for name in names})

    def select(self, rows: Tensor | slice) -> "GlimpseState":
        """The state of some images of the batch.

        Args:
            rows: their indices, or a slice.
        """
        return GlimpseState(
            [level[rows] for level in self.prepared],
            [window[rows] for window in self.windows],
            [Features(seen.pooled[rows], [layer[rows] for layer in seen.maps]) for seen in self.features],
            [fused[rows] for fused in self.fused],
            [memory and (memory[0][rows], memory[1][rows]) for memory in self.memories],
            [logits[rows] for logits in self.logits],
            self.generator,
        )

    def detached(self) -> "GlimpseState":
        """The same state, detached from the graph of gradients."""
        return replace(
            self,
            windows=[window.detach() for window in self.windows],
            features=[Features(f.pooled.detach(), [layer.detach() for layer in f.maps]) for f in self.features],
            fused=[fused.detach() for fused in self.fused],
            memories=[memory and (memory[0].detach(), memory[1].detach()) for memory in self.memories],
            logits=[logits.detach() for logits in self.logits],
        )

    def pack(self) -> dict[str, Tensor]:
        """As named tensors ``[batch, ...]``, for programs that keep the state between glimpses.

        ``windows``, ``features``, ``map_*`` and ``fused`` have one entry per glimpse along dimension 1; ``keys`` and
        ``values`` are the fusion's memory. ``prepared`` does not change and is left out.
        """
        maps = zip(*(features.maps for features in self.features), strict=True)
        return {
            "windows": torch.stack(self.windows, 1),
            "features": torch.stack([features.pooled for features in self.features], 1),
            **{f"map_{place}": torch.stack(layer, 1) for place, layer in enumerate(maps)},
            "fused": torch.stack(self.fused, 1),
            **({} if self.memory is None else {"keys": self.memory[0], "values": self.memory[1]}),
        }

    @classmethod
    def unpack(cls, prepared: Sequence[Tensor], packed: dict[str, Tensor]) -> "GlimpseState":
        """The inverse of :meth:`pack`, without earlier memories and answers, which later glimpses do not need.

        Args:
            prepared: what all glimpses share.
            packed: from :meth:`pack`.
        """
        windows, pooled, fused = (list(packed[name].unbind(1)) for name in ("windows", "features", "fused"))
        maps = [packed[name].unbind(1) for name in packed if name.startswith("map_")]
        features = [Features(seen, [layer[t] for layer in maps]) for t, seen in enumerate(pooled)]
        memory = (packed["keys"], packed["values"]) if "keys" in packed else None
        return cls(list(prepared), windows, features, fused, [None] * (len(windows) - 1) + [memory])
