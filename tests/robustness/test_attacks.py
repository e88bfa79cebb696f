"""Attacks keep to their bounds and find what there is to find; what hides a gradient is seen through."""

from dataclasses import replace

import pytest
import torch

from glimpsenet.models.build import build_model
from glimpsenet.models.config import ModelConfig
from glimpsenet.models.glimpsenet import GlimpseNet
from glimpsenet.robustness.attacks import (
    MGNET,
    Answers,
    answer_loss,
    auto_attack,
    pgd,
    score_loss,
    white_box_parts,
)


@pytest.fixture(scope="module")
def model(margins) -> GlimpseNet:
    return margins.read_quarters(0)


@pytest.fixture(scope="module")
def draw(margins):
    return margins.draw_quarters


def test_a_model_that_withstands_noise_falls_to_attacks_and_sooner_within_larger_bounds(margins, model):
    margins.EXPERIMENTS["attacks"].check(margins.withstand(model))


def test_pgd_keeps_to_its_bounds_and_leaves_alone_what_is_wrong_anyway(margins, model):
    answers, eps = Answers(model, 2), margins.SOUND.eps
    images, labels, attacked = margins.attack(answers, margins.SOUND)
    labels[:3] = (labels[:3] + 1) % 4  # wrong before any attack
    assert (attacked - images).abs().max() <= eps + 1e-6
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    assert (attacked - images).abs().max() > eps / 2
    again = pgd(answers, answer_loss(answers), images, labels, margins.SOUND, torch.Generator().manual_seed(0))
    wrong = ~answers.right(images, labels)
    assert wrong[:3].all()
    assert torch.equal(again[wrong], images[wrong])


def test_restarts_only_help(margins, model):
    answers, settings = Answers(model, 2), replace(margins.SOUND, eps=3 / 255, step=1 / 255, steps=2)
    left = []
    for restarts in (1, 8):
        _, labels, attacked = margins.attack(answers, replace(settings, restarts=restarts))
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


def test_the_gradient_factor_is_off_in_the_sound_protocol_and_the_model_as_it_was(model, draw):
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


def test_the_score_loss_has_the_gradient_of_the_expectation(margins):
    experiment = margins.EXPERIMENTS["score-loss"]
    experiment.check(experiment.measure(0))


def test_the_score_loss_wants_a_policy_that_draws(model):
    with pytest.raises(ValueError, match="a stochastic policy"):
        score_loss(Answers(model, 2))


@pytest.mark.parametrize("part", ["apgd-ce", "apgd-t", "square"])
def test_the_parts_of_autoattack_keep_to_the_bound_and_repeat(margins, model, part):
    answers, (images, labels), eps = Answers(model, 1), margins.draw_quarters(6, 7), margins.EPS
    before = torch.get_rng_state()
    attacked = auto_attack(answers, images, labels, [part], eps=eps, queries=100, targets=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert (attacked - images).abs().max() <= eps + 1e-5
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    again = auto_attack(answers, images, labels, [part], eps=eps, queries=100, targets=1)
    assert torch.equal(attacked, again)


def test_few_classes_have_no_targeted_attack():
    assert "apgd-t" in white_box_parts(4)
    assert not {"apgd-t", "fab-t"} & set(white_box_parts(3))
