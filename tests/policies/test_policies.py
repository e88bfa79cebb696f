"""Where to look: the paper's localization network, and the policies that do not learn."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from glimpsenet import geometry
from glimpsenet.models.backbone import Features
from glimpsenet.models.state import GlimpseState
from glimpsenet.policies.baselines import CenterGlimpses, FixedGlimpses, OracleGlimpses, RandomGlimpses
from glimpsenet.policies.distributions import squash_to_window
from glimpsenet.policies.exploration import LargerGlimpses
from glimpsenet.policies.localization import GradientRescaling, LocalizationNetwork

RANGE = (0.2, 0.5)


def state_at(glimpse: int, batch: int = 4, size: int = 80, width: int = 6) -> GlimpseState:
    state = GlimpseState([torch.zeros(batch, 1, size, size)])
    for _ in range(glimpse - 1):
        state.append(torch.zeros(batch, 3), Features(torch.zeros(batch, width), []), torch.randn(batch, width))
    return state


def test_every_policy_starts_with_the_whole_image():
    for policy in (LocalizationNetwork(6, RANGE), RandomGlimpses(RANGE), CenterGlimpses(RANGE, 20)):
        assert policy(state_at(1)).tolist() == [[1, 0, 0]] * 4


@given(
    raw=st.lists(st.floats(0, 1), min_size=3, max_size=3),
    smallest=st.floats(0.01, 1),
    stretch=st.floats(0, 1),
)
def test_squashed_windows_stay_inside_and_in_range(raw, smallest, stretch):
    largest = smallest + (1 - smallest) * stretch
    windows = squash_to_window(torch.tensor(raw, dtype=torch.float64), (smallest, largest))
    assert smallest - 1e-9 <= windows[0] <= largest + 1e-9
    assert geometry.lies_inside(windows)


def test_localization_is_the_papers_formula():
    torch.manual_seed(0)
    policy, state = LocalizationNetwork(6, RANGE), state_at(2)
    torch.nn.init.normal_(policy.fc.bias)
    z = torch.sigmoid(state.fused[-1] @ policy.fc.weight.T + policy.fc.bias)
    s = 0.2 + 0.3 * z[:, 0]
    expected = torch.stack([s, (2 * z[:, 1] - 1) * (1 - s), (2 * z[:, 2] - 1) * (1 - s)], 1)
    torch.testing.assert_close(policy(state), expected)


def test_windows_shrink_from_the_largest_and_stay_inside():
    wanted = torch.tensor([0.2, 0.8, -0.3])
    fixed = FixedGlimpses({2: wanted}, CenterGlimpses(RANGE, 20))
    assert torch.equal(LargerGlimpses(fixed, 0.0, RANGE)(state_at(2)), wanted.expand(4, 3))
    half = LargerGlimpses(fixed, 0.5, RANGE)(state_at(2))
    torch.testing.assert_close(half[0], torch.tensor([0.35, 0.65, -0.3]))  # moved inside
    assert LargerGlimpses(fixed, 1.0, RANGE)(state_at(2))[0, 0] == 0.5


def test_gradient_rescaling_is_identity_forwards_and_a_factor_backwards():
    x = torch.randn(5, requires_grad=True)
    y = GradientRescaling.apply(x, 0.02)
    assert torch.equal(y, x)
    y.sum().backward()
    assert torch.equal(x.grad, torch.full((5,), 0.02))


def test_the_factor_rescales_all_that_flows_into_the_network_and_nothing_else():
    torch.manual_seed(0)
    state, gradients = state_at(2), []
    for factor in (1.0, 0.02):
        torch.manual_seed(1)
        policy = LocalizationNetwork(6, RANGE, factor)
        windows = policy(state)
        windows.square().sum().backward()
        gradients.append(policy.fc.weight.grad)
    torch.testing.assert_close(gradients[1], 0.02 * gradients[0])


def test_squash_is_differentiable():
    raw = torch.rand(3, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda r: squash_to_window(r, RANGE), raw)


def test_random_glimpses_fill_the_admissible_space_and_repeat_with_the_seed():
    windows = RandomGlimpses(RANGE, seed=1)(state_at(2, batch=4000))
    assert geometry.lies_inside(windows).all()
    position = windows[:, 1:] / (1 - windows[:, :1])
    assert windows[:, 0].min() < 0.201
    assert windows[:, 0].max() > 0.499
    assert position.std().item() == pytest.approx(1 / 3**0.5, rel=0.03)  # uniform on [-1, 1]
    assert torch.equal(windows, RandomGlimpses(RANGE, seed=1)(state_at(2, batch=4000)))
    assert not torch.equal(windows, RandomGlimpses(RANGE, seed=2)(state_at(2, batch=4000)))


def test_random_glimpses_leave_other_random_numbers_alone():
    state = state_at(2)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    RandomGlimpses(RANGE)(state)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(("size", "scale"), [(80, 0.25), (40, 0.5), (30, 0.5), (400, 0.2)])
def test_center_glimpses_are_native_clipped_to_the_range(size, scale):
    windows = CenterGlimpses(RANGE, 20)(state_at(2, size=size))
    torch.testing.assert_close(windows, torch.tensor([[scale, 0.0, 0.0]] * 4))


def test_oracle_looks_at_the_box():
    boxes = torch.tensor([[30.0, 20.0, 46.0, 36.0], [0.0, 0.0, 16.0, 16.0], [0.0, 0.0, 80.0, 40.0], [torch.nan] * 4])
    windows = OracleGlimpses(RANGE, boxes)(state_at(3))
    # 1.25 * 8 / 40 = 0.25; at the corner moved inside; the widest allowed; unknown: the middle
    expected = torch.tensor([[0.25, -0.05, -0.3], [0.25, -0.75, -0.75], [0.5, 0.0, -0.5], [0.5, 0.0, 0.0]])
    torch.testing.assert_close(windows, expected)
    assert (geometry.covered_share(windows[:2], boxes[:2], 80) == 1).all()


def test_fixed_glimpses_inject_at_their_steps_only():
    policy = FixedGlimpses({1: (0.5, 0.1, 0.0), 3: torch.full((4, 3), 0.3)}, otherwise=CenterGlimpses(RANGE, 20))
    torch.testing.assert_close(policy(state_at(1)), torch.tensor([[0.5, 0.1, 0.0]] * 4))
    assert policy(state_at(2))[0].tolist() == [0.25, 0, 0]
    assert (policy(state_at(3)) == 0.3).all()
    with pytest.raises(ValueError, match="glimpses count from 1"):
        FixedGlimpses({0: (0.5, 0.0, 0.0)}, otherwise=policy)
