"""Linearized multi-sampling: the glimpses are the bilinear ones, the gradient is a fitted plane's."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from glimpsenet.models import sampling as module
from glimpsenet.models.build import build_model
from glimpsenet.models.config import LinearizedConfig, ModelConfig
from glimpsenet.models.sampling import BilinearGlimpses, LinearizedGlimpses


def random_windows(count: int) -> torch.Tensor:
    scale = 0.1 + 0.8 * torch.rand(count, 1)
    return torch.cat([scale, (2 * torch.rand(count, 2) - 1) * (1 - scale)], 1)


def window_gradient(generator, images, affine, weight):
    affine = affine.clone().requires_grad_()
    (generator(generator.prepare(images), affine) * weight).sum().backward()
    return affine.grad


def test_glimpses_and_the_images_gradient_are_the_bilinear_ones():
    torch.manual_seed(0)
    affine = torch.cat([random_windows(5), torch.tensor([[1.0, 0, 0], [0.5, 0.9, -0.9], [0.2, 3.0, 0.0]])])
    weight, results = torch.rand(len(affine), 3, 7, 7), []
    for generator in (BilinearGlimpses(7), LinearizedGlimpses(7)):
        torch.manual_seed(1)
        images, windows = torch.rand(len(affine), 3, 33, 33, requires_grad=True), affine.clone().requires_grad_()
        glimpses = generator(generator.prepare(images), windows)
        (glimpses * weight).sum().backward()
        results.append((glimpses.detach(), images.grad))
        assert windows.grad.isfinite().all()
    for bilinear, linearized in zip(*results, strict=True):
        assert bilinear.equal(linearized)


def test_on_a_ramp_the_gradient_is_exact_up_to_the_border():
    torch.manual_seed(0)
    ticks = (torch.arange(40, dtype=torch.float64) + 0.5) / 20 - 1
    slope = torch.tensor([[0.7, -0.3], [1.1, 0.4]], dtype=torch.float64)  # of two channels, in x and y
    images = (slope[:, :1, None] * ticks + slope[:, 1:, None] * ticks[:, None] + 2)[None].expand(7, -1, -1, -1)
    corner = torch.tensor([[0.4, 0.6, -0.6], [1.0, 0.0, 0.0]])
    affine, weight = torch.cat([random_windows(5), corner]).double(), torch.randn(7, 2, 8, 8, dtype=torch.float64)
    places = (torch.arange(8, dtype=torch.float64) + 0.5) / 4 - 1
    along_s = slope[:, :1, None] * places + slope[:, 1:, None] * places[:, None]
    expected = torch.stack([(weight * along_s).sum((1, 2, 3)), *(weight.sum((2, 3)) @ slope).unbind(1)], 1)
    torch.testing.assert_close(window_gradient(LinearizedGlimpses(8), images, affine, weight), expected)


def test_the_slope_is_the_least_squares_plane():
    """numpy's own least squares, one glimpse pixel at a time, samples beyond the border mirrored."""
    torch.manual_seed(0)
    image, affine = torch.rand(1, 1, 24, 24, dtype=torch.float64), torch.tensor([[0.6, 0.4, -0.3]]).double()
    generator = LinearizedGlimpses(5, samples=12, spread=0.8)
    grid = module.sampling_grid(affine, 5, False)
    for i, j in [(0, 0), (2, 1), (3, 4), (4, 4)]:
        weight = torch.zeros(1, 1, 5, 5, dtype=torch.float64)
        weight[0, 0, i, j] = 1
        offset = generator.pattern[:, i, j].double() * (2 * 0.6 / 5)
        offset[(grid[0, i, j] + offset).abs() > 23 / 24] *= -1
        points = grid[0, i, j] + offset
        values = F.grid_sample(image, points[None, None], align_corners=False).flatten()
        design = np.column_stack([points.numpy(), np.ones(len(points))])
        plane = np.linalg.lstsq(design, values.numpy(), rcond=None)[0]
        gradient = window_gradient(generator, image, affine, weight)
        np.testing.assert_allclose(gradient[0, 1:].numpy(), plane[:2], rtol=1e-5)


def test_an_edge_is_noticed_from_further_away():
    """A bright half 6 pixels off, under noise: bilinear follows the noise, the plane leans towards the edge."""
    rng = torch.Generator().manual_seed(0)
    images = 0.02 * torch.rand(64, 1, 64, 64, generator=rng)
    images[..., 36:] += 1
    affine = torch.tensor([0.5, 0.0, 0.0]).repeat(64, 1)  # a glimpse pixel spans 4 pixels of the image
    column = torch.zeros(1, 1, 8, 8)
    column[..., 3] = 1  # centred at 30, so 6 pixels from the edge
    bilinear = window_gradient(BilinearGlimpses(8), images, affine, column)[:, 1]
    linearized = window_gradient(LinearizedGlimpses(8), images, affine, column)[:, 1]
    assert (linearized > 0).all()
    assert (bilinear < 0).float().mean() > 0.3


def test_equal_inputs_have_equal_gradients_and_no_global_draw_is_made():
    torch.manual_seed(0)
    images, affine = torch.rand(2, 1, 30, 30), random_windows(2)
    before = torch.get_rng_state()
    first, second = (window_gradient(LinearizedGlimpses(6), images, affine, torch.ones(())) for _ in range(2))
    assert first.equal(second)
    assert torch.get_rng_state().equal(before)


def test_samples_are_taken_only_where_a_gradient_is_wanted(monkeypatch):
    calls, original = [], F.grid_sample
    monkeypatch.setattr(module.F, "grid_sample", lambda *args: calls.append(1) or original(*args))
    images, affine = torch.rand(1, 1, 30, 30, requires_grad=True), torch.tensor([[0.4, 0.1, 0.1]])
    generator = LinearizedGlimpses(6)
    generator([images], affine)
    with torch.no_grad():
        generator([images], affine.clone().requires_grad_())
    assert len(calls) == 2
    generator([images], affine.clone().requires_grad_())
    assert len(calls) == 4


@pytest.mark.parametrize("settings", [{"samples": 5}, {"samples": 2}, {"spread": 0.0}])
def test_patterns_that_fix_no_plane_are_refused(settings):
    with pytest.raises(ValueError, match="samples must be even"):
        LinearizedGlimpses(6, **settings)


def test_models_are_built_with_it_and_its_pattern_is_no_weight():
    config = ModelConfig(backbone="glimpse_cnn", image_size=20, glimpse_size=8, sampling=LinearizedConfig())
    model = build_model(config, num_classes=3, in_channels=1)
    assert isinstance(model.generator, LinearizedGlimpses)
    assert not [name for name in model.state_dict() if name.startswith("generator")]
    model.train()
    model(torch.rand(4, 1, 20, 20)).logits.sum().backward()
