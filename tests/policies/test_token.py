"""The token policy: which windows it proposes, which it leaves out, and that it can learn to look."""

import torch

from glimpsenet import geometry
from glimpsenet.models.backbone import Features
from glimpsenet.models.state import GlimpseState
from glimpsenet.policies.token import TokenPolicy


def state(maps: list[torch.Tensor], windows: list[tuple[float, float, float]]) -> GlimpseState:
    batch, channels = maps[0].shape[:2]
    state = GlimpseState([torch.zeros(batch, 1, 32, 32)])
    for feature_map, window in zip(maps, windows, strict=True):
        looked_at = torch.tensor(window).expand(batch, 3)
        state.append(looked_at, Features(torch.zeros(batch, channels), [feature_map]), torch.zeros(batch, 5))
    return state


def policy(**settings) -> TokenPolicy:
    torch.manual_seed(0)
    made = TokenPolicy(3, 5, **{"scales": (0.25,), **settings})
    torch.nn.init.normal_(made.score.weight)
    return made.eval()


def test_every_cell_proposes_its_centre_at_every_scale():
    windows = policy(scales=(0.1, 0.2)).distribution(state([torch.randn(1, 3, 2, 3)], [(1.0, 0.0, 0.0)])).windows
    expected = [(s, x, y) for y in (-0.5, 0.5) for x in (-2 / 3, 0, 2 / 3) for s in (0.1, 0.2)]
    torch.testing.assert_close(windows[0], torch.tensor(expected))


def test_cells_of_later_glimpses_lie_inside_their_windows():
    maps = [torch.randn(1, 3, 4, 4), torch.randn(1, 3, 4, 4)]
    windows = policy(scales=(0.05,)).distribution(state(maps, [(1.0, 0.0, 0.0), (0.4, 0.5, -0.5)])).windows
    inside = windows[0, 16:]
    assert ((inside[:, 1:] - torch.tensor([0.5, -0.5])).abs() < 0.4).all()
    assert geometry.lies_inside(windows).all()


def test_points_within_cells_fill_the_map_and_belong_to_their_scores():
    """With a score that is a cell's own value, the best window is in the best cell, whatever the point."""
    fine, coarse = policy(subcells=2), policy()
    feature_map = torch.randn(1, 3, 4, 4)
    windows = fine.distribution(state([feature_map], [(1.0, 0.0, 0.0)])).windows
    centres = {tuple(round(float(v), 4) for v in window[1:]) for window in windows[0]}
    ticks = [-0.75, -0.625, -0.375, -0.125, 0.125, 0.375, 0.625, 0.75]  # the outermost moved inside
    assert centres == {(x, y) for x in ticks for y in ticks}
    cells = windows.view(4, 4, 2, 2, 3)[..., 1:].mean((2, 3))
    wanted = coarse.distribution(state([feature_map], [(1.0, 0.0, 0.0)])).windows.view(4, 4, 3)[..., 1:]
    torch.testing.assert_close(cells[1:3, 1:3], wanted[1:3, 1:3])


def test_nothing_is_looked_at_twice():
    looker = policy(max_overlap=0.5)
    maps = [torch.randn(2, 3, 4, 4)]
    first = looker(state(maps, [(1.0, 0.0, 0.0)]))
    later = state([*maps, maps[0]], [(1.0, 0.0, 0.0), tuple(first[0].tolist())])
    assert not torch.equal(looker(later)[0], first[0])
    again = policy(max_overlap=1.0)
    torch.testing.assert_close(again.distribution(later).allowed, torch.ones(2, 32, dtype=torch.bool))


def test_a_wide_look_does_not_forbid_a_narrow_one_inside_it():
    maps = [torch.randn(1, 3, 4, 4)] * 2
    allowed = policy(scales=(0.2, 0.4)).distribution(state(maps, [(1.0, 0.0, 0.0), (0.4, 0.25, 0.25)])).allowed
    centre = (1 * 4 + 1) * 2  # of the first glimpse's cell at (-0.25, -0.25), narrow
    assert allowed[0, centre]
    assert allowed[0, (2 * 4 + 2) * 2]
    assert not allowed[0, (2 * 4 + 2) * 2 + 1]


def test_features_learn_from_the_policy_only_if_told_to():
    for stop in (True, False):
        feature_map = torch.randn(1, 3, 4, 4, requires_grad=True)
        looker = policy(stop_gradient=stop)
        looker.distribution(state([feature_map], [(1.0, 0.0, 0.0)])).entropy().sum().backward()
        assert (feature_map.grad is None) == stop


def test_it_draws_while_training_and_takes_the_best_otherwise():
    looker, seen = policy(), state([torch.randn(1, 3, 8, 8)], [(1.0, 0.0, 0.0)])
    assert len({tuple(looker(seen)[0].tolist()) for _ in range(20)}) == 1
    looker.train()
    assert len({tuple(looker(seen)[0].tolist()) for _ in range(20)}) > 3
