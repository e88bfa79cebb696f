"""The token policy: every location of the feature maps so far proposes windows; the best one comes next.

    score(u, k) = v_k . ReLU(W u + V o_t + w log s_u),       p = softmax(score)

u is the token at one location of one glimpse's feature map (what is there), o_t the fusion's newest output (what is
known overall), s_u the scale of that glimpse. Each token proposes windows of every scale k centred at its position in
the image, or at several points within its cell. Windows that overlap earlier ones too much are excluded: inhibition of
return (Itti, Koch & Niebur 1998). The policy samples in training and takes the maximum otherwise.

It scores locations instead of regressing coordinates. AdaptiveNN (2025) uses a map too; here the maps of all glimpses
so far compete, so a narrow window can follow inside a wide one.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from glimpsenet import geometry
from glimpsenet.models.state import GlimpseState
from glimpsenet.policies.base import StochasticPolicy
from glimpsenet.policies.distributions import CategoricalWindows
from glimpsenet.precision import at_least_float32


class TokenPolicy(StochasticPolicy):
    """Chooses among windows around the locations of all feature maps so far.

    Args:
        channels: channels of the feature map, the only one that the backbone returns.
        context: width of the fusion's output.
        scales: scales that each location proposes.
        subcells: points to propose along each side of a cell; 1 is the centre only.
        max_overlap: largest intersection over union with an earlier window; 1 allows any.
        stop_gradient: keep the policy's gradients out of the backbone.
        width: hidden units.
    """

    scales: Tensor
    scores_windows = True
    differentiable = False

    def __init__(
        self,
        channels: int,
        context: int,
        scales: Sequence[float],
        *,
        subcells: int = 1,
        max_overlap: float = 0.5,
        stop_gradient: bool = True,
        width: int = 64,
    ):
        super().__init__()
        self.token = nn.Linear(channels, width)
        self.context = nn.Linear(context, width, bias=False)
        self.zoom = nn.Linear(1, width, bias=False)
        self.score = nn.Linear(width, len(scales) * subcells**2)
        nn.init.zeros_(self.score.weight)
        self.register_buffer("scales", torch.tensor(scales), persistent=False)
        self.subcells, self.max_overlap, self.stop_gradient = subcells, max_overlap, stop_gradient

    def distribution(self, state: GlimpseState) -> CategoricalWindows:
        """Scores of all proposed windows."""
        maps = torch.stack([features.maps[0] for features in state.features], 1)
        context, looked_at = state.fused[-1], torch.stack(state.windows, 1).detach()
        if self.stop_gradient:
            maps, context = maps.detach(), context.detach()
        with torch.autocast(maps.device.type, enabled=False):
            tokens = at_least_float32(maps).movedim(2, -1)
            looked_at = looked_at.to(tokens.dtype)
            hidden = self.token(tokens) + self.context(at_least_float32(context))[:, None, None, None]
            hidden = F.relu(hidden + self.zoom(looked_at[..., :1].log())[:, :, None, None])
            windows = self._windows(looked_at, *maps.shape[-2:])
            return CategoricalWindows(windows, self.score(hidden).flatten(1), self._unseen(windows, looked_at))

    def _windows(
        self, looked_at: Float[Tensor, "batch glimpse 3"], rows: int, columns: int
    ) -> Float[Tensor, "batch n 3"]:
        """Proposed windows in the order of the scores: glimpse, row, column, point in the cell (row by row), scale."""
        fine = geometry.cell_centres(looked_at, rows * self.subcells, columns * self.subcells)
        fine = fine.unflatten(3, (columns, self.subcells)).unflatten(2, (rows, self.subcells))
        centres = fine.transpose(3, 4).flatten(1, 5)[:, :, None].expand(-1, -1, len(self.scales), -1)
        scales = self.scales[None, None, :, None].expand(*centres.shape[:3], 1)
        return geometry.move_inside(torch.cat([scales, centres], -1).flatten(1, 2))

    def _unseen(self, windows: Float[Tensor, "batch n 3"], looked_at: Float[Tensor, "batch glimpse 3"]) -> Tensor:
        """Whether each window overlaps no earlier window (first glimpse excepted) by more than ``max_overlap``."""
        unseen = torch.ones(windows.shape[:2], dtype=torch.bool, device=windows.device)
        for seen in looked_at.unbind(1)[1:]:
            unseen &= geometry.overlap(windows, seen[:, None]) <= self.max_overlap
        return unseen

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"scales={self.scales.tolist()}, subcells={self.subcells}"
