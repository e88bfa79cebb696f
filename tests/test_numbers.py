"""Numbers at their limits: gradients of every differentiable part, low precision, borders, sizes, one class and many.

Gradients are compared with finite differences in float64 (``torch.autograd.gradcheck``); where a part computes in
float32 on purpose, in float32 with wider steps. Geometry, generators and windows have theirs in their own tests.
"""

import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck

from glimpsenet import create_model, geometry
from glimpsenet.data.sample import Batch
from glimpsenet.evaluation.metrics import ScanpathMetrics
from glimpsenet.losses import glimpse_loss
from glimpsenet.models.backbone import Features
from glimpsenet.models.clues import AffineClue, NoClue, PositionalClue, sinusoidal_encoding
from glimpsenet.models.fusion import AttentionFusion, NoFusion
from glimpsenet.models.glimpsenet import GlimpseNet, GlimpseOutput
from glimpsenet.models.sampling import BilinearGlimpses, GlimpseGenerator, LinearizedGlimpses, MipmapGlimpses
from glimpsenet.models.state import GlimpseState
from glimpsenet.policies.baselines import FixedGlimpses, RandomGlimpses
from glimpsenet.policies.distributions import CategoricalWindows, GaussianWindows, squash_to_window, unsquash
from glimpsenet.policies.localization import GradientRescaling, LocalizationNetwork, SpatiotemporalLocalization
from glimpsenet.policies.token import TokenPolicy
from glimpsenet.training.penalties import overlap_penalty, scale_penalty

RANGE = (0.2, 0.5)
WINDOWS = {1: (1.0, 0.0, 0.0), 2: (0.3, 0.4, -0.5), 3: (0.45, -0.5, 0.1)}


def numbers(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


def small_model(**settings) -> GlimpseNet:
    torch.manual_seed(0)
    own = {"image_size": 16, "glimpse_size": 8, "num_glimpses": 3, **settings}
    return create_model("glimpse_cnn", num_classes=5, in_channels=1, **own).eval()


def state_of(maps: Tensor, fused: Tensor) -> GlimpseState:
    """Two looks: maps ``[batch, step, channel, row, column]``, the fusion's output after them."""
    windows = torch.tensor([[1.0, 0, 0], [0.3, 0.4, -0.5]], dtype=maps.dtype).expand(len(maps), 2, 3)
    seen = [Features(one.mean((2, 3)), [one]) for one in maps.unbind(1)]
    images = torch.zeros(len(maps), 1, 16, 16, dtype=maps.dtype)
    return GlimpseState([images], list(windows.unbind(1)), seen, [fused] * 2)


# ---- gradients -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clue", [AffineClue(8), PositionalClue(8, 80), PositionalClue(8, 80, True), NoClue(8)])
def test_gradient_of_the_clues(clue):
    window = torch.tensor([[0.3, 0.1, -0.2]], dtype=torch.float64)
    assert gradcheck(lambda features: clue(features, window), numbers(1, 8))


def test_gradient_of_the_positional_encoding():
    assert gradcheck(partial(sinusoidal_encoding, width=12), numbers(3, 2))


@pytest.mark.parametrize(
    "fusion", [AttentionFusion(8, 1), AttentionFusion(8, 4), AttentionFusion(8, 2, True), NoFusion()]
)
def test_gradient_of_the_fusion(fusion):
    def after_three(*tokens: Tensor) -> Tensor:
        memory = None
        for token in tokens:
            fused, memory = fusion(token, memory)
        return fused

    fusion.double()
    assert gradcheck(after_three, tuple(numbers(2, 8, seed=seed) for seed in range(3)))


@pytest.mark.parametrize("factor", [1.0, 0.02])
def test_gradient_of_the_rescaling_is_the_factor(factor):
    x = numbers(4)
    GradientRescaling.apply(x, factor).sum().backward()
    torch.testing.assert_close(x.grad, torch.full_like(x, factor))
    assert gradcheck(lambda x: GradientRescaling.apply(x, 1.0), numbers(4))


def test_gradient_of_the_localization_networks():
    linear = LocalizationNetwork(8, RANGE).double()
    assert gradcheck(lambda fused: linear.raw(state_of(numbers(2, 2, 8, 2, 2).detach(), fused)), numbers(2, 8))
    tokens = SpatiotemporalLocalization(8, 16, RANGE).double()
    assert gradcheck(lambda maps: tokens.raw(state_of(maps, numbers(2, 8).detach())), numbers(2, 2, 8, 2, 2))


@pytest.mark.filterwarnings("ignore:Input #0 requires gradient and is not a double")
def test_gradient_of_the_token_policy():
    """It scores in float32: steps of finite differences are long, and must cross no kink of the ReLU."""
    torch.manual_seed(0)
    policy = TokenPolicy(4, 6, [0.3, 0.5], stop_gradient=False, subcells=2)
    nn.init.normal_(policy.score.weight)
    maps, fused = numbers(2, 2, 4, 2, 2).detach().float(), numbers(2, 6).detach().float()

    def log_probabilities(maps: Tensor) -> Tensor:
        return policy.distribution(state_of(maps, fused)).log_probabilities.clamp(min=-50)

    assert gradcheck(log_probabilities, maps.requires_grad_(), eps=1e-3, atol=2e-2, rtol=2e-2)


def test_gradient_of_the_distributions():
    windows = squash_to_window(torch.rand(2, 5, 3, generator=torch.Generator().manual_seed(0)).double(), RANGE)
    allowed = torch.tensor([[True, True, False, True, False], [False] * 5])
    for quantity in (
        lambda scores: CategoricalWindows(windows, scores, allowed).log_probability(windows[:, 1]),
        lambda scores: CategoricalWindows(windows, scores, allowed).entropy(),
        lambda scores: CategoricalWindows(windows, scores).score(windows[:, 3]),
    ):
        assert gradcheck(quantity, numbers(2, 5))
    assert gradcheck(lambda mean: GaussianWindows(mean, 0.3, RANGE).log_probability(windows[:, 0]), numbers(2, 3))
    assert gradcheck(lambda mean: GaussianWindows(mean, 0.3, RANGE).mode(), numbers(2, 3))


def test_gradient_of_the_penalties():
    raw = numbers(2, 4, 3)
    assert gradcheck(lambda raw: scale_penalty(squash_to_window(raw.sigmoid(), RANGE)), raw)
    assert gradcheck(lambda raw: overlap_penalty(squash_to_window(raw.sigmoid(), RANGE)), raw)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_gradient_of_the_loss(alpha):
    labels = torch.tensor([1, 3])

    def loss(logits: Tensor, auxiliary: Tensor) -> Tensor:
        windows = torch.zeros(2, 3, 3, dtype=torch.float64)
        return glimpse_loss(GlimpseOutput(logits, windows, windows, auxiliary), labels, alpha).total

    assert gradcheck(loss, (numbers(2, 3, 4), numbers(2, 2, 4, seed=1)))


@pytest.mark.parametrize("sampling", ["bilinear", "mipmap", "linearized"])
@pytest.mark.parametrize("clue", ["affine", "positional"])
def test_gradient_of_the_whole_loop_in_the_image(sampling, clue):
    """From pixels to the last answer, the windows given."""
    model = small_model(sampling=sampling, clue=clue).double()
    look = FixedGlimpses(WINDOWS, RandomGlimpses(RANGE))
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(1, 1, 16, 16, generator=generator, dtype=torch.float64)
    direction = torch.randn(1, 1, 16, 16, generator=generator, dtype=torch.float64)

    def along(step: Tensor) -> Tensor:
        return model(image + step * direction, policy=look).logits[:, -1]

    assert gradcheck(along, torch.zeros((), dtype=torch.float64, requires_grad=True), eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("sampling", ["bilinear", "mipmap"])
def test_gradient_of_the_whole_loop_in_the_localization_network(sampling):
    """From the raw window to the next answer: the pathwise gradient, times the factor. Windows are float32.

    Without clue, through which no gradient is to flow; on a smooth image, whose samples have hardly a kink.
    """
    model = small_model(sampling=sampling, num_glimpses=2, clue="none")
    ramp = torch.linspace(0, 1, 16)
    image = (ramp[:, None].square() + ramp.sin())[None, None] / 2
    bias = model.policy.fc.bias

    def answer() -> Tensor:
        return 100 * model(image).logits[0, -1, 2]

    (gradient,) = torch.autograd.grad(answer(), bias)
    steps = 2e-2 * torch.eye(3)
    with torch.no_grad():
        slopes = []
        for step in steps:
            bias += step
            above = answer()
            bias -= 2 * step
            slopes.append((above - answer()) / 4e-2)
            bias += step
    assert gradient.abs().max() > 0.01
    torch.testing.assert_close(gradient, 0.02 * torch.stack(slopes), rtol=0.05, atol=0.05 * gradient.abs().max().item())


# ---- bfloat16 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", ["bilinear", "mipmap", "linearized"])
def test_bfloat16_takes_the_same_glimpses_and_answers_nearly_the_same(sampling):
    """Windows given: the glimpses bit for bit, probabilities within 0.02. Chosen: windows within 0.02, of sides 2."""
    model = small_model(sampling=sampling, image_size=64, glimpse_size=16)
    images = torch.rand(8, 1, 64, 64, generator=torch.Generator().manual_seed(2))
    look = FixedGlimpses(WINDOWS, RandomGlimpses(RANGE))
    with torch.inference_mode():
        exact, chosen = model(images, policy=look), model(images)
        with torch.autocast("cpu", torch.bfloat16):
            coarse, coarsely_chosen = model(images, policy=look), model(images)
            glimpses = model.crops(images, exact.windows)
    assert glimpses.dtype == torch.float32
    assert torch.equal(glimpses, model.crops(images, exact.windows))
    assert torch.equal(coarse.windows, exact.windows)
    assert not torch.equal(coarse.logits.float(), exact.logits)  # it did compute in bfloat16
    assert (coarse.logits.float().softmax(-1) - exact.logits.softmax(-1)).abs().max() < 0.02
    assert coarsely_chosen.windows.dtype == torch.float32
    assert (coarsely_chosen.windows - chosen.windows).abs().max() < 0.02


# ---- borders and limits of s ---------------------------------------------------------------------------------------

GENERATORS = [BilinearGlimpses(8), BilinearGlimpses(8, True), MipmapGlimpses(8), LinearizedGlimpses(8)]


@pytest.mark.parametrize("generator", [GENERATORS[0], *GENERATORS[2:]], ids=lambda g: type(g).__name__)
@pytest.mark.parametrize(("x", "y"), [(-1, -1), (1, -1), (-1, 1), (1, 1), (0, 1)])
def test_windows_at_the_border_show_the_border(generator: GlimpseGenerator, x, y):
    """A window of 8 of 32 pixels in a corner is those pixels."""
    image = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(3))
    glimpse = generator(generator.prepare(image), torch.tensor([[0.25, 0.75 * x, 0.75 * y]]))
    column, row = round(12 + 12 * x), round(12 + 12 * y)
    torch.testing.assert_close(glimpse, image[:, :, row : row + 8, column : column + 8], atol=1e-5, rtol=0)


@pytest.mark.parametrize("generator", GENERATORS, ids=lambda g: f"{type(g).__name__}-{getattr(g, 'align_corners', '')}")
@pytest.mark.parametrize("window", [(1e-6, 0.0, 0.0), (1e-6, 1.0, -1.0), (1.0, 0.0, 0.0), (0.999999, 0.0, 0.0)])
def test_scales_at_their_limits_give_finite_glimpses_and_gradients(generator, window):
    image = torch.rand(1, 1, 33, 33, generator=torch.Generator().manual_seed(3)).requires_grad_()
    windows = torch.tensor([window], requires_grad=True)
    glimpse = generator(generator.prepare(image), windows)
    assert glimpse.isfinite().all()
    assert glimpse.min() >= 0 and glimpse.max() <= 1 + 1e-5  # noqa: PT018
    glimpse.sum().backward()
    assert windows.grad.isfinite().all()
    assert image.grad.isfinite().all()


@pytest.mark.parametrize("scale_range", [(0.2, 0.5), (1.0, 1.0), (0.3, 0.3), (1e-3, 1.0)])
@pytest.mark.parametrize("raw", [0.0, 0.5, 1.0])
def test_raw_numbers_at_their_limits_are_windows_inside(scale_range, raw):
    window = squash_to_window(torch.full((1, 3), raw), scale_range)
    assert geometry.lies_inside(window).all()
    again = squash_to_window(unsquash(window, scale_range), scale_range)
    torch.testing.assert_close(again, window, atol=1e-5, rtol=0)
    assert (
        GaussianWindows(torch.full((1, 3), 40 * (raw - 0.5)), 0.1, scale_range).log_probability(window).isfinite().all()
    )
    assert geometry.overlap(window, window).item() == pytest.approx(1, abs=1e-4)


# ---- one glimpse and sixteen, one class and ten thousand -----------------------------------------------------------


def batch_of(images: Tensor, labels: Tensor) -> Batch:
    count, size = len(images), images.shape[-1]
    boxes = torch.tensor([2.0, 2, 6, 6]).expand(count, 4)
    return Batch(torch.arange(count), images, labels, boxes, torch.full((count, 2), size), [])


@pytest.mark.parametrize("policy", ["linear", "spatiotemporal", "tokens"])
@pytest.mark.parametrize("classes", [1, 10_000])
@pytest.mark.parametrize("glimpses", [1, 16])
def test_any_number_of_glimpses_and_classes_trains_and_is_measured(glimpses, classes, policy):
    torch.manual_seed(0)
    settings = {"image_size": 16, "glimpse_size": 8, "num_glimpses": glimpses, "policy": policy}
    model = create_model("glimpse_cnn", num_classes=classes, in_channels=1, **settings)
    images, labels = torch.rand(4, 1, 16, 16), torch.tensor([0, classes - 1, 0, classes // 2])
    output = model(model.normalization(images))
    assert output.logits.shape == (4, glimpses, classes)
    assert geometry.lies_inside(output.windows).all()
    loss = glimpse_loss(output, labels, 0.6)
    # New classifiers know little: about log(classes), and exactly 0 where there is nothing to know.
    assert loss.total.item() == (0 if classes == 1 else pytest.approx(math.log(classes), abs=3))
    loss.total.backward()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in model.parameters())
    metrics = ScanpathMetrics(glimpses, classes, 16, sync=False)
    metrics.update(output, batch_of(images, labels))
    assert sum(state.numel() for state in metrics.metric_state.values()) < 2_000_000  # not classes squared
    result = metrics.compute()
    assert result["num_images"] == 4
    assert len(result["accuracy"]) == glimpses
    right = (output.logits.argmax(-1) == labels[:, None]).double().mean(0)
    torch.testing.assert_close(torch.tensor(result["accuracy"], dtype=torch.float64), right)
    assert metrics.right_per_class.sum() == 4 * right[-1]
    assert metrics.per_class[0] == (2 if classes > 1 else 4)
