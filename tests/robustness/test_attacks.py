"""Attacks keep to their bounds and find what there is to find; what hides a gradient is seen through."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from glimpsenet.config import ModelConfig
from glimpsenet.models.build import build_model
from glimpsenet.models.glimpsenet import GlimpseNet
from glimpsenet.models.policies import FixedGlimpses
from glimpsenet.robustness.attacks import (
    MGNET,
    PGD,
    Answers,
    answer_loss,
    auto_attack,
    pgd,
    score_loss,
    white_box_parts,
)
from glimpsenet.training.losses import glimpse_loss

EPS = 16 / 255
SOUND = PGD(eps=EPS, step=EPS / 4, steps=10, restarts=2)


def draw(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A brighter quarter of four is the class; the pixels are noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (count,), generator=generator)
    images = 0.1 + 0.5 * torch.rand(count, 1, 32, 32, generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        row, column = divmod(label, 2)
        image[:, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16] += 0.12
    return images.clamp(0, 1), labels


def train(**settings) -> GlimpseNet:
    """A model that reads such images; seconds."""
    torch.manual_seed(0)
    config = ModelConfig(
        backbone="glimpse_cnn",
        image_size=32,
        glimpse_size=8,
        num_glimpses=2,
        sampling="mipmap",
        **settings,
    )
    model = build_model(config, num_classes=4, in_channels=1)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for step in range(60):
        images, labels = draw(32, 100 + step)
        optimizer.zero_grad()
        glimpse_loss(model(model.normalization(images)), labels, 0.3).total.backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def model() -> GlimpseNet:
    return train()


@pytest.fixture(scope="module")
def tokens() -> GlimpseNet:
    return train(localization="tokens", localization_layer=-1)


def attack(answers, loss, settings, count=24):
    images, labels = draw(count, 7)
    return images, labels, pgd(answers, loss(answers), images, labels, settings, torch.Generator().manual_seed(0))


def test_pgd_keeps_to_its_bounds_and_succeeds_where_noise_does_not(model):
    answers = Answers(model, 2)
    images, labels, attacked = attack(answers, answer_loss, SOUND)
    assert (attacked - images).abs().max() <= EPS + 1e-6
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    clean, after = answers.right(images, labels).double().mean(), answers.right(attacked, labels).double().mean()
    noise = EPS * torch.randn(images.shape, generator=torch.Generator().manual_seed(1)).sign()
    assert clean > 0.9
    assert answers.right((images + noise).clamp(0, 1), labels).double().mean() > 0.9
    assert after < 0.5
    assert (attacked[~answers.right(images, labels)] == images[~answers.right(images, labels)]).all()


def test_a_larger_bound_never_leaves_more(model):
    answers, left = Answers(model, 2), []
    for eps in (1 / 255, 4 / 255, 16 / 255, 1.0):
        settings = replace(SOUND, eps=eps, step=min(eps / 4, 8 / 255), steps=30)
        _, labels, attacked = attack(answers, answer_loss, settings)
        left.append(answers.right(attacked, labels).double().mean().item())
    assert left == sorted(left, reverse=True)
    assert left[0] > left[-1] == 0


def test_restarts_only_help(model):
    answers, settings = Answers(model, 2), replace(SOUND, eps=3 / 255, step=1 / 255, steps=2)
    left = []
    for restarts in (1, 8):
        _, labels, attacked = attack(answers, answer_loss, replace(settings, restarts=restarts))
        left.append(answers.right(attacked, labels))
    assert (left[1] <= left[0]).all()


def test_mgnets_protocol_is_in_units_of_the_normalisation_and_leaves_valid_pixels():
    torch.manual_seed(0)
    config = ModelConfig(backbone="resnet18", image_size=64, glimpse_size=32, num_glimpses=1)
    model = build_model(config, num_classes=4).eval()
    answers = Answers(model, 1, normalized=True, gradient_factor=None)
    images = model.normalization(torch.zeros(2, 3, 64, 64))
    labels = answers(images).argmax(-1)
    attacked = pgd(answers, answer_loss(answers), images, labels, MGNET, torch.Generator())
    pixels = (attacked - images) * model.normalization.std
    assert (attacked - images).abs().max() == pytest.approx(4 / 255, rel=1e-4)
    assert pixels.abs().max() < 0.95 / 255  # ImageNet's deviations are 0.22 to 0.23
    assert (attacked * model.normalization.std + model.normalization.mean).min() < -1e-3


def test_the_gradient_factor_is_off_in_the_sound_protocol_and_the_model_as_it_was(model):
    image = draw(1, 3)[0].requires_grad_()
    gradients = []
    for factor in (None, 0.02, 1.0):
        (gradient,) = torch.autograd.grad(
            answer_loss(Answers(model, 2, gradient_factor=factor))(image, torch.tensor([1])).sum(), image
        )
        gradients.append(gradient)
    assert torch.equal(gradients[0], gradients[1])
    assert not torch.allclose(gradients[1], gradients[2], rtol=1e-3, atol=0)
    assert model.policy.gradient_factor == 0.02
    assert all(weight.requires_grad for weight in model.classifier.parameters())


def test_the_score_loss_has_the_gradient_of_the_expectation(tokens):
    """Against finite differences of the expectation itself, summed over all windows that can be drawn."""
    answers = Answers(tokens, 2)
    policy = answers.model.policy
    policy.stop_gradient = False
    images, labels = draw(1, 5)
    direction = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))

    def expectation(step: float) -> float:
        moved = answers.model.normalization(images + step * direction)
        with torch.no_grad():
            state = answers.model(moved).state
            distribution = policy.distribution(state.before(2))
            total = 0.0
            for window, chance in zip(distribution.windows[0], distribution.log_probabilities[0].exp(), strict=True):
                look = FixedGlimpses({1: (1.0, 0.0, 0.0), 2: window}, policy)
                logits = answers.model(moved, policy=look).logits[:, -1]
                total += float(chance * F.cross_entropy(logits, labels))
        return total

    true = (expectation(2e-3) - expectation(-2e-3)) / 4e-3
    moved = images.clone().requires_grad_()
    torch.manual_seed(0)
    loss = score_loss(answers, draws=2000)(moved, labels)
    (gradient,) = torch.autograd.grad(loss.sum(), moved)
    assert loss.item() == pytest.approx(expectation(0), rel=0.05)
    assert (gradient * direction).sum().item() == pytest.approx(true, rel=0.25, abs=0.02)


def test_the_score_loss_wants_a_policy_that_draws(model):
    with pytest.raises(ValueError, match="a policy that draws"):
        score_loss(Answers(model, 2))


@pytest.mark.parametrize("part", ["apgd-ce", "apgd-t", "square"])
def test_the_parts_of_autoattack_keep_to_the_bound_and_find_something(model, part):
    answers, (images, labels) = Answers(model, 1), draw(6, 7)
    before = torch.get_rng_state()
    attacked = auto_attack(answers, images, labels, [part], eps=EPS, queries=100, targets=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert (attacked - images).abs().max() <= EPS + 1e-5
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    assert answers.right(attacked, labels).sum() < answers.right(images, labels).sum()
    again = auto_attack(answers, images, labels, [part], eps=EPS, queries=100, targets=1)
    assert torch.equal(attacked, again)


def test_few_classes_have_no_targeted_attack():
    assert "apgd-t" in white_box_parts(4)
    assert not {"apgd-t", "fab-t"} & set(white_box_parts(3))
