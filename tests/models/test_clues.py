"""Spatial clues; the positional encoding against eq. 1 written out."""

import math

import pytest
import torch

from glimpsenet.models.clues import AffineClue, NoClue, PositionalClue, sinusoidal_encoding


def equation_1(x: float, y: float, d: int) -> list[float]:
    entries = []
    for k in range(1, d // 4 + 1):
        w = 10000 ** (-4 * k / d)
        entries += [math.sin(w * x), math.cos(w * x), math.sin(w * y), math.cos(w * y)]
    return entries


@pytest.mark.parametrize("width", [4, 64, 512])
def test_encoding_is_equation_1(width):
    code = sinusoidal_encoding(torch.tensor([[13.0, 57.5]], dtype=torch.float64), width)
    torch.testing.assert_close(code[0], torch.tensor(equation_1(13.0, 57.5, width), dtype=torch.float64))


def test_positional_clue_speaks_of_the_centre_in_pixels_of_the_full_image():
    clue = PositionalClue(8, image_size=101)
    windows = torch.tensor([[0.2, -1.0, 1.0], [0.4, 0.0, 0.5]])  # x = 0 and 50, y = 100 and 75
    got = clue(torch.ones(2, 8), windows)
    expected = torch.tensor([equation_1(0, 100, 8), equation_1(50, 75, 8)]) + 1
    torch.testing.assert_close(got, expected)
    assert clue.width == 8


def test_scale_is_encoded_only_on_request():
    near, far = torch.tensor([[0.2, 0.1, 0.1]]), torch.tensor([[0.5, 0.1, 0.1]])
    features = torch.zeros(1, 8)
    without, with_scale = PositionalClue(8, 80), PositionalClue(8, 80, with_scale=True)
    torch.testing.assert_close(without(features, near), without(features, far))
    assert not torch.allclose(with_scale(features, near), with_scale(features, far))


def test_affine_clue_appends_the_parameters():
    features, windows = torch.rand(2, 5), torch.rand(2, 3)
    clue = AffineClue(5)
    assert clue.width == 8
    torch.testing.assert_close(clue(features, windows), torch.cat([features, windows], 1))


@pytest.mark.parametrize("clue", [AffineClue(8), PositionalClue(8, 80), PositionalClue(8, 80, True), NoClue(8)])
def test_no_gradient_flows_into_the_window(clue):
    features, windows = torch.rand(2, 8, requires_grad=True), torch.rand(2, 3, requires_grad=True)
    clue(features, windows).sum().backward()
    assert windows.grad is None
    assert features.grad is not None


def test_width_not_divisible_by_four_is_refused():
    with pytest.raises(ValueError, match="divisible by 4; the backbone has 10"):
        PositionalClue(10, 80)
