"""Distributions over windows: probabilities by hand, and draws that follow them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from glimpsenet.policies.distributions import CategoricalWindows, GaussianWindows, squash_to_window, unsquash

WINDOWS = torch.tensor([[[0.3, -0.5, 0.0], [0.3, 0.5, 0.0], [0.6, 0.0, 0.0]]])


def test_probabilities_are_the_softmax_of_scores():
    d = CategoricalWindows(WINDOWS, torch.tensor([[0.0, 2.0, -2.0]]))
    weights = [1.0, math.e**2, math.e**-2]
    for window, weight in zip(WINDOWS[0], weights, strict=True):
        assert d.log_probability(window[None]).exp().item() == pytest.approx(weight / sum(weights), rel=1e-5)
    p = [weight / sum(weights) for weight in weights]
    assert d.entropy().item() == pytest.approx(-sum(x * math.log(x) for x in p), rel=1e-5)
    assert torch.equal(d.mode(), WINDOWS[:, 1])
    assert d.score(WINDOWS[:, 2]).item() == -2


def test_draws_follow_the_probabilities_and_exploration_is_uniform():
    torch.manual_seed(0)
    windows, scores = WINDOWS.expand(20_000, -1, -1), torch.tensor([0.0, 1.0, -1.0]).expand(20_000, -1)
    d = CategoricalWindows(windows, scores)
    expected = torch.tensor([0.0, 1.0, -1.0]).softmax(0)
    for draw, wanted in ((d.sample(), expected), (d.explore(), torch.full((3,), 1 / 3))):
        share = torch.stack([(draw == window).all(1).float().mean() for window in WINDOWS[0]])
        torch.testing.assert_close(share, wanted, atol=0.015, rtol=0)


def test_what_is_not_allowed_is_never_chosen_unless_nothing_is():
    scores = torch.tensor([[0.0, 9.0, 1.0], [0.0, 9.0, 1.0]])
    allowed = torch.tensor([[True, False, True], [False, False, False]])
    d = CategoricalWindows(WINDOWS.expand(2, -1, -1), scores, allowed)
    assert torch.equal(d.mode(), torch.stack([WINDOWS[0, 2], WINDOWS[0, 1]]))
    assert d.log_probability(WINDOWS[0, 1].expand(2, 3))[0] < -1000
    assert all(not torch.equal(d.sample()[0], WINDOWS[0, 1]) for _ in range(50))
    scores.requires_grad_()
    CategoricalWindows(WINDOWS.expand(2, -1, -1), scores, allowed).entropy().sum().backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()


def test_nearest_minds_both_place_and_scale():
    d = CategoricalWindows(WINDOWS, torch.zeros(1, 3))
    assert d.nearest(torch.tensor([[0.3, -0.1, 0.0]])).item() == 0
    assert d.nearest(torch.tensor([[0.6, -0.1, 0.0]])).item() == 2


@given(
    raw=st.lists(st.floats(0.01, 0.99), min_size=3, max_size=3),
    smallest=st.floats(0.05, 0.5),
    stretch=st.floats(0.1, 0.9),
)
def test_unsquash_is_the_inverse_of_squash(raw, smallest, stretch):
    scale_range = (smallest, smallest + (1 - smallest) * stretch)
    z = torch.tensor([raw], dtype=torch.float64)
    torch.testing.assert_close(unsquash(squash_to_window(z, scale_range), scale_range), z, atol=1e-6, rtol=0)


def test_gaussian_density_is_that_of_the_normal_before_the_sigmoid():
    mean, raw = torch.tensor([[0.2, -0.4, 1.0]]), torch.tensor([[0.5, 0.1, 0.3]])
    d = GaussianWindows(mean, 0.7, (0.2, 0.5))
    window = squash_to_window(raw.sigmoid(), (0.2, 0.5))
    expected = torch.distributions.Normal(mean, 0.7)
    torch.testing.assert_close(d.log_probability(window), expected.log_prob(raw).sum(1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(d.entropy(), expected.entropy().sum(1))
    torch.testing.assert_close(d.mode(), squash_to_window(mean.sigmoid(), (0.2, 0.5)))


def test_a_scale_that_is_given_has_no_density():
    mean = torch.zeros(1, 3)
    d, window = GaussianWindows(mean, 1.0, (0.3, 0.3)), torch.tensor([[0.3, 0.0, 0.0]])
    torch.testing.assert_close(
        d.log_probability(window), 2 * torch.distributions.Normal(0.0, 1.0).log_prob(torch.zeros(1))
    )
