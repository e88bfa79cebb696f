"""Glimpse generators against a slow per-pixel sampler, torch's own affine grid, and the area they stand for."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from glimpsenet import geometry
from glimpsenet.models.sampling import BilinearGlimpses, MipmapGlimpses


def random_windows(count: int, smallest: float = 0.1, largest: float = 1.0) -> torch.Tensor:
    scale = smallest + (largest - smallest) * torch.rand(count, 1)
    return torch.cat([scale, (2 * torch.rand(count, 2) - 1) * (1 - scale)], 1)


def slow_sampler(image: torch.Tensor, windows: torch.Tensor, size: int, outside: str) -> torch.Tensor:
    """One pixel at a time in pixel-edge coordinates: pixel i's centre is at i + 0.5."""
    n = image.shape[-1]
    x0, y0, x1, _ = geometry.window_to_box(windows, n).tolist()
    step = (x1 - x0) / size

    def value(row: int, column: int) -> float:
        if outside == "zeros" and not (0 <= row < n and 0 <= column < n):
            return 0.0
        return float(image[min(max(row, 0), n - 1), min(max(column, 0), n - 1)])

    glimpse = torch.empty(size, size)
    for i in range(size):
        for j in range(size):
            y, x = y0 + (i + 0.5) * step - 0.5, x0 + (j + 0.5) * step - 0.5
            top, left = math.floor(y), math.floor(x)
            down, right = y - top, x - left
            glimpse[i, j] = (
                value(top, left) * (1 - down) * (1 - right)
                + value(top, left + 1) * (1 - down) * right
                + value(top + 1, left) * down * (1 - right)
                + value(top + 1, left + 1) * down * right
            )
    return glimpse


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), size=st.integers(2, 9))
def test_bilinear_equals_a_slow_per_pixel_sampler(seed, size):
    torch.manual_seed(seed)
    image, windows = torch.rand(1, 1, 16, 16), random_windows(1)
    generator = BilinearGlimpses(size)
    fast = generator(generator.prepare(image), windows)[0, 0]
    torch.testing.assert_close(fast, slow_sampler(image[0, 0], windows[0], size, "zeros"), atol=1e-5, rtol=0)


@pytest.mark.parametrize("align_corners", [True, False])
def test_windows_are_sampled_on_torchs_affine_grid(align_corners):
    """With aligned corners, as MGNet uses it."""
    images, windows = torch.rand(4, 3, 32, 32), random_windows(4)
    generator = BilinearGlimpses(12, align_corners)
    grid = F.affine_grid(geometry.window_to_matrix(windows), [4, 3, 12, 12], align_corners)
    expected = F.grid_sample(images, grid, align_corners=align_corners)
    torch.testing.assert_close(generator(generator.prepare(images), windows), expected, atol=1e-5, rtol=0)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), image_size=st.integers(20, 67))
def test_mipmap_equals_bilinear_where_nothing_is_scaled_down(seed, image_size):
    torch.manual_seed(seed)
    images = torch.rand(3, 2, image_size, image_size)
    native = 20 / image_size
    windows = random_windows(3, 0.3 * native, native)
    mipmap, bilinear = MipmapGlimpses(20), BilinearGlimpses(20)
    # Borders differ on purpose (extended against zeros): compare away from them.
    windows[:, 1:] *= 0.8
    inside = (windows[:, 1:].abs().amax(1) + windows[:, 0]) < 1 - 1 / image_size
    one, other = mipmap(mipmap.prepare(images), windows), bilinear(bilinear.prepare(images), windows)
    torch.testing.assert_close(one[inside], other[inside], atol=1e-5, rtol=0)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_mipmap_of_the_whole_image_is_the_mean_of_each_block(factor):
    images = torch.rand(2, 1, 8 * factor, 8 * factor)
    generator = MipmapGlimpses(8)
    glimpse = generator(generator.prepare(images), geometry.first_window(images))
    torch.testing.assert_close(glimpse, F.avg_pool2d(images, factor))


def test_mipmap_blends_two_levels_in_between():
    images = torch.rand(1, 1, 32, 32)
    generator = MipmapGlimpses(8)
    levels = generator.prepare(images)
    windows = torch.tensor([[2**0.5 / 4, 0.1, -0.1]])  # sqrt 2 pixels apart: level 1/2
    at_level = [BilinearGlimpses(8)([level], windows) for level in levels[:2]]
    torch.testing.assert_close(generator(levels, windows), (at_level[0] + at_level[1]) / 2)


@pytest.mark.parametrize("image_size", [81, 100, 33])
def test_levels_of_odd_sides_do_not_shift(image_size):
    """A ramp stays the same ramp at every scale: its value is the position."""
    ramp = ((torch.arange(image_size) + 0.5) / image_size * 2 - 1).expand(1, 1, image_size, image_size)
    generator = MipmapGlimpses(10)
    for scale in (0.2, 0.35, 0.6):
        glimpse = generator(generator.prepare(ramp), torch.tensor([[scale, 0.1, 0.1]]))[0, 0, 0]
        expected = 0.1 + scale * (torch.arange(10) + 0.5 - 5) / 5
        torch.testing.assert_close(glimpse, expected, atol=1e-5, rtol=0)


def test_a_bright_spot_between_samples_is_seen_only_with_the_pyramid():
    images = torch.zeros(1, 1, 64, 64)
    images[0, 0, 17, 17] = 64.0
    whole = geometry.first_window(images)
    aliased, smooth = BilinearGlimpses(8), MipmapGlimpses(8)
    assert aliased(aliased.prepare(images), whole).max() == 0
    assert smooth(smooth.prepare(images), whole).max() == pytest.approx(1.0)


@pytest.mark.parametrize(
    "generator", [BilinearGlimpses(5), BilinearGlimpses(5, align_corners=True), MipmapGlimpses(5)], ids=repr
)
def test_glimpses_are_differentiable_in_window_and_image(generator):
    torch.manual_seed(3)
    images = torch.rand(2, 1, 24, 24, dtype=torch.float64, requires_grad=True)
    windows = torch.tensor([[0.311, 0.127, -0.217], [0.473, -0.313, 0.291]], dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x, a: generator(generator.prepare(x), a), (images, windows), eps=1e-7, atol=1e-4)


def test_coordinates_stay_exact_under_autocast():
    images = torch.rand(1, 1, 256, 256)
    windows = torch.tensor([[0.05, 0.3331, 0.7177]])
    generator = MipmapGlimpses(16)
    plain = generator(generator.prepare(images), windows)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(generator(generator.prepare(images), windows), plain)


@pytest.mark.parametrize("scales", [(0.1, 0.2), (0.3, 1.0), (1.0, 1.0), (torch.nan, 0.5)])
def test_levels_that_no_window_needs_are_not_sampled(scales, monkeypatch):
    images, generator, sampled = torch.rand(2, 1, 64, 64), MipmapGlimpses(8), []
    windows = torch.tensor([[scale, 0.0, 0.0] for scale in scales])
    levels = generator.prepare(images)
    plain = generator(levels, windows)  # with gradients, all are
    grid_sample = F.grid_sample

    def spy(image, *settings):
        sampled.append(image.shape[-1])
        return grid_sample(image, *settings)

    monkeypatch.setattr("glimpsenet.models.sampling.F.grid_sample", spy)
    with torch.inference_mode():
        torch.testing.assert_close(generator(levels, windows), plain, atol=0, rtol=0, equal_nan=True)
    levels_needed = {(0.1, 0.2): [64, 32], (0.3, 1.0): [32, 16, 8], (1.0, 1.0): [8]}
    assert sampled == levels_needed.get(scales, [64, 32, 16, 8])
