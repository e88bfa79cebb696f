"""Objectives: each moves the policy the right way on a task small enough to work out by hand."""

import pytest
import torch

from glimpsenet import create_model
from glimpsenet.bench.contenders import PPO, Listwise, judge
from glimpsenet.errors import SettingError
from glimpsenet.models.config import MipmapConfig
from glimpsenet.models.glimpsenet import GlimpseNet, GlimpseOutput
from glimpsenet.policies.baselines import FixedGlimpses, OracleGlimpses
from glimpsenet.policies.config import LinearConfig, TokenConfig
from glimpsenet.training.config import ObjectiveConfig, TrainingConfig
from glimpsenet.training.objectives import BoxSupervision, Pathwise, PolicyGradient, ValueMap, discounted
from glimpsenet.training.penalties import overlap_penalty, scale_penalty
from glimpsenet.training.rewards import confidence, evidence, likelihood, progress
from glimpsenet.training.task import diversity

RANGE = (0.2, 0.5)
BOXES = torch.tensor([[0.0, 0.0, 6.0, 6.0]]).expand(8, 4)
"""The evidence: the upper left corner."""
SETTINGS = {
    "image_size": 32,
    "glimpse_size": 8,
    "sampling": MipmapConfig(),
    "num_glimpses": 3,
    "policy": TokenConfig(layer=1, scales=(0.25,)),
}


def model(**settings) -> GlimpseNet:
    torch.manual_seed(0)
    return create_model("glimpse_cnn", num_classes=2, in_channels=1, **{**SETTINGS, **settings})


def covers(windows: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
    """1 for windows whose centre lies in the upper left quarter."""
    return ((windows[..., 1] < 0) & (windows[..., 2] < 0)).float()


def place_reward(output: GlimpseOutput, labels: torch.Tensor) -> torch.Tensor:
    return covers(output.windows[:, 1:])


@pytest.mark.parametrize("name", ["gradient", "map", "boxes", "guidance"])
def test_a_policy_learns_where_the_reward_is(margins, name):
    experiment = margins.EXPERIMENTS[name]
    experiment.check(experiment.measure(0))


def test_later_passes_over_a_batch_look_again_through_its_windows_and_clip():
    net = model()
    objective = PPO(RANGE, place_reward, net.classifier.in_features)
    objective.passes = 3
    images, labels = torch.rand(8, 1, 32, 32), torch.zeros(8, dtype=torch.long)
    optimizer = torch.optim.SGD(net.policy.parameters(), 5.0)
    seen, moved = [], []
    for _ in range(4):
        output = net(images, policy=objective.behaviour(net, 0.0, labels, BOXES))
        seen.append(output.windows)
        optimizer.zero_grad()
        objective(net, output, labels, BOXES).backward()
        moved.append(any(p.grad.abs().max() > 0 for p in net.policy.parameters()))
        optimizer.step()
        restored = PPO(RANGE, place_reward, net.classifier.in_features)
        restored.passes = 3
        restored.load_state_dict(objective.state_dict())  # as if training had been interrupted here
        objective = restored
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[3])
    assert moved[0]


def test_the_first_pass_is_plain_policy_gradient():
    net = model()
    images, labels = torch.rand(8, 1, 32, 32), torch.zeros(8, dtype=torch.long)
    output = net(images)
    objective = PolicyGradient(RANGE, place_reward, net.classifier.in_features)
    objective(net, output, labels, BOXES).backward()
    advantage = place_reward(output, labels) - torch.stack(
        [objective.baseline(o)[:, 0] for o in output.state.fused[:2]], 1
    )
    advantage = ((advantage - advantage.mean()) / (advantage.std(correction=0) + 1e-6)).detach()
    log_probability = torch.stack(
        [net.policy.distribution(output.state.before(t)).log_probability(output.windows[:, t - 1]) for t in (2, 3)], 1
    )
    (expected,) = torch.autograd.grad(-(advantage * log_probability).mean(), net.policy.score.weight)
    torch.testing.assert_close(net.policy.score.weight.grad, expected)


def test_only_the_policy_learns_from_an_objective_behind_a_stopped_gradient():
    net = model()
    images, labels = torch.rand(8, 1, 32, 32), torch.zeros(8, dtype=torch.long)
    objective = ValueMap(RANGE, evidence)
    objective(net, net(images), labels, BOXES).backward()
    learning = {name for name, parameter in net.named_parameters() if parameter.grad is not None}
    assert learning
    assert all(name.startswith("policy.") for name in learning)


def test_the_value_map_predicts_the_rewards_of_the_windows_looked_at():
    net = model()
    images, labels = torch.rand(8, 1, 32, 32), torch.arange(8) % 2
    output = net(images)
    rewards = evidence(output, labels)
    predicted = torch.stack(
        [net.policy.distribution(output.state.before(t)).score(output.windows[:, t - 1]) for t in (2, 3)], 1
    )
    error = (predicted - rewards).abs()
    huber = torch.where(error < 1, 0.5 * error**2, error - 0.5).mean()
    torch.testing.assert_close(ValueMap(RANGE, evidence)(net, output, labels, BOXES), huber)


def test_rewards_by_hand():
    torch.manual_seed(0)
    output = GlimpseOutput(torch.randn(4, 3, 5), torch.zeros(4, 3, 3), torch.zeros(4, 3, 2), torch.randn(4, 2, 5))
    labels = torch.tensor([0, 1, 2, 3])
    p = output.logits.softmax(-1)[torch.arange(4), :, labels]
    torch.testing.assert_close(confidence(output, labels), p[:, 1:] - p[:, :-1])
    torch.testing.assert_close(progress(output, labels), p[:, 1:].log() - p[:, :-1].log())
    own = output.auxiliary_logits.softmax(-1)[torch.arange(4), :, labels]
    torch.testing.assert_close(likelihood(output, labels), own.log())
    assert (own < 1 / 5).any()
    assert (own > 1 / 5).any()
    torch.testing.assert_close(evidence(output, labels), torch.where(own < 1 / 5, 1 / 5, own).log())
    returns = discounted(torch.tensor([[1.0, 2.0, 4.0]]), 0.5)
    assert returns.tolist() == [[1 + 1 + 1, 2 + 2, 4]]


def test_candidates_are_judged_as_they_would_be_seen_and_leave_no_trace():
    net = model().train()
    images, labels = torch.rand(8, 1, 32, 32), torch.arange(8) % 2
    before = {name: value.clone() for name, value in net.state_dict().items()}
    windows = torch.tensor([[0.25, 0.0, 0.0], [0.25, 0.5, 0.5]]).expand(8, 2, 3)
    rewards = judge(net, images, windows, labels)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    net.eval()
    glimpses = net.crops(images, windows)[:, 1]
    own = net.auxiliary_classifier(net.backbone(glimpses).pooled).log_softmax(1)
    torch.testing.assert_close(rewards[:, 1], own[torch.arange(8), labels], atol=1e-5, rtol=1e-5)


def test_listwise_looks_at_the_best_candidate():
    net, objective = model(), Listwise(RANGE)
    images, labels = torch.rand(8, 1, 32, 32), torch.arange(8) % 2
    looked = objective.behaviour(net, 0.0, labels, BOXES)
    output = net(images, policy=looked)
    for step, (windows, rewards) in enumerate(zip(looked.windows, looked.rewards, strict=True), 1):
        assert torch.equal(output.windows[:, step], windows[torch.arange(8), rewards.argmax(1)])
    objective(net, output, labels, BOXES).backward()
    assert any(p.grad is not None and p.grad.any() for p in net.policy.parameters())


def test_pathwise_is_the_papers_loss_alone():
    net = model(policy=LinearConfig())
    objective = Pathwise(RANGE)
    output = net(torch.rand(8, 1, 32, 32), policy=objective.behaviour(net, 0.0, torch.zeros(8).long(), BOXES))
    assert objective(net, output, torch.zeros(8).long(), BOXES) == 0
    output.logits.sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in net.policy.parameters())


def test_penalties_by_hand():
    # Two windows of side 1 that share a quarter of it, and one far away; the first glimpse does not count.
    windows = torch.tensor([[[1.0, 0.0, 0.0], [0.5, -0.5, -0.5], [0.5, 0.0, -0.5], [0.25, 0.75, 0.75]]])
    assert scale_penalty(windows) == pytest.approx((0.5 + 0.5 + 0.25) / 3)
    assert overlap_penalty(windows) == pytest.approx((0.5 / 1.5 + 0 + 0) / 3)
    assert scale_penalty(windows[:, :1]) == overlap_penalty(windows[:, :2]) == 0


FIRST = (1.0, 0.0, 0.0)
CROSSING = (0.5, -0.4, -0.3), (0.4, 0.2, 0.1)
"""[-0.9, 0.1] x [-0.8, 0.2] and [-0.2, 0.6] x [-0.3, 0.5] share 0.3 x 0.5 = 0.15; their areas are 1 and 0.64."""


def test_the_gradient_of_the_scale_penalty_is_its_weight_over_the_windows():
    windows = torch.tensor([[FIRST, *CROSSING]] * 4, dtype=torch.float64, requires_grad=True)
    scale_penalty(windows).backward()
    expected = torch.zeros(4, 3, 3, dtype=torch.float64)
    expected[:, 1:, 0] = 1 / 8
    torch.testing.assert_close(windows.grad, expected)


def test_the_gradient_of_the_overlap_penalty_by_hand():
    """With the shared area I and both areas A, B: d(I / (A + B - I)) = ((A + B) dI - I d(A + B)) / (A + B - I)^2."""
    windows = torch.tensor([[FIRST, *CROSSING]], dtype=torch.float64, requires_grad=True)
    overlap_penalty(windows).backward()
    together, shared = 1.64, 0.15
    # Moving to the right, the first window gains a strip as high as what is shared: 0.5; growing, 0.3 + 0.5.
    one = [0.8 * together - shared * 8 * 0.5, 0.5 * together, 0.3 * together]
    other = [0.8 * together - shared * 8 * 0.4, -0.5 * together, -0.3 * together]
    expected = torch.tensor([[[0.0] * 3, one, other]], dtype=torch.float64) / (together - shared) ** 2
    torch.testing.assert_close(windows.grad, expected)
    # Against it the left one moves to the left and up, the right one to the right and down, and both shrink.
    assert (windows.grad[0, 1] > 0).all()
    assert windows.grad[0, 2].sign().tolist() == [1, -1, -1]


@pytest.mark.parametrize(
    ("other", "gradient"),
    [
        ((0.1, 0.6, 0.6), [0.0, 0.0, 0.0]),  # apart
        ((0.2, 0.1, 0.1), [-2 * 0.2**2 / 0.4**3, 0.0, 0.0]),  # inside: (0.2 / s)^2
        ((0.5, 0.05, 0.05), [2 * 0.4 / 0.5**2, 0.0, 0.0]),  # around: (s / 0.5)^2
        ((0.4, 0.0, 0.0), [0.0, 0.0, 0.0]),  # the same: a maximum
    ],
)
def test_windows_that_do_not_cross_are_not_driven_apart(other, gradient):
    windows = torch.tensor([[FIRST, (0.4, 0.0, 0.0), other]], dtype=torch.float64, requires_grad=True)
    overlap_penalty(windows).backward()
    torch.testing.assert_close(windows.grad[0, 1], torch.tensor(gradient, dtype=torch.float64))


def test_penalties_reach_the_localization_network_with_their_weights_and_its_factor():
    """The last window alone depends on the bias: d s / dz = 0.3 sigmoid', d tx / dz by the product rule."""
    net = model(policy=LinearConfig(gradient_factor=0.02))
    with torch.no_grad():  # windows near the centre, which cross the one at glimpse 2
        net.policy.fc.weight *= 0.01
    looked = FixedGlimpses({2: (0.4, 0.3, -0.2)}, net.policy)
    output = net(torch.rand(8, 1, 32, 32), policy=looked)
    objective = Pathwise(RANGE, scale_weight=2.0, overlap_weight=3.0)
    (got,) = torch.autograd.grad(objective(net, output, torch.zeros(8).long(), BOXES), net.policy.fc.bias)

    windows = output.windows.detach().requires_grad_()
    (wanted,) = torch.autograd.grad(2 * scale_penalty(windows) + 3 * overlap_penalty(windows), windows)
    assert wanted[:, 2].abs().sum(0).min() > 0
    total = torch.zeros(3)
    for (s, tx, ty), (ds, dtx, dty) in zip(windows[:, 2].tolist(), wanted[:, 2].tolist(), strict=True):
        z = [(s - 0.2) / 0.3, *((t / (1 - s) + 1) / 2 for t in (tx, ty))]
        slope = [value * (1 - value) for value in z]
        ds -= dtx * (2 * z[1] - 1) + dty * (2 * z[2] - 1)  # a larger window has less room for its centre
        total += 0.02 * torch.tensor([0.3 * ds * slope[0], 2 * (1 - s) * dtx * slope[1], 2 * (1 - s) * dty * slope[2]])
    torch.testing.assert_close(got, total, atol=1e-7, rtol=1e-3)


def test_the_scale_penalty_makes_windows_small(margins):
    experiment = margins.EXPERIMENTS["scale-penalty"]
    experiment.check(experiment.measure(0))


def test_box_supervision_is_the_likelihood_of_the_window_on_the_box_where_it_may_be_chosen():
    net = model(policy=TokenConfig(layer=1, scales=(0.25,), max_overlap=0.5))
    wanted = OracleGlimpses(RANGE, BOXES)
    # Half of the batch has been there at glimpse 2, and may not choose it again.
    elsewhere = torch.tensor([0.25, 0.75, 0.75])
    there = wanted.choose(net(torch.rand(8, 1, 32, 32)).state)
    second = torch.where(torch.arange(8)[:, None] < 4, there, elsewhere)
    output = net(torch.rand(8, 1, 32, 32), policy=FixedGlimpses({2: second}, net.policy))
    loss = BoxSupervision(RANGE)(net, output, torch.zeros(8).long(), BOXES)
    terms = []
    for step, counted in ((2, range(8)), (3, range(4, 8))):
        distribution = net.policy.distribution(output.state.before(step))
        assert distribution.may_choose(there).tolist() == [image in counted for image in range(8)]
        terms += [-distribution.log_probability(there)[image] for image in counted]
    torch.testing.assert_close(loss, torch.stack(terms).sum() / 16)
    (gradient,) = torch.autograd.grad(loss, net.policy.score.weight)
    (expected,) = torch.autograd.grad(torch.stack(terms).sum() / 16, net.policy.score.weight)
    torch.testing.assert_close(gradient, expected)


def test_unknown_boxes_teach_nothing():
    net, objective = model(), BoxSupervision(RANGE)
    output = net(torch.rand(8, 1, 32, 32))
    assert objective(net, output, torch.zeros(8).long(), torch.full((8, 4), torch.nan)) == 0


@pytest.mark.parametrize(
    ("objective", "settings", "culprit"),
    [
        ("policy-gradient", {"policy": LinearConfig()}, "probabilities"),
        ("value-map", {"policy": LinearConfig(noise=0.5)}, "tokens"),
        ("pathwise", {}, "no gradient"),
        ("feature-map", {"policy": LinearConfig()}, "spatiotemporal"),
        ("listwise", {"auxiliary_classifier": False}, "auxiliary"),
        ("guidance", {"policy": LinearConfig(), "auxiliary_classifier": False}, "auxiliary"),
        ("value-map", {"num_glimpses": 1}, "num_glimpses is 1"),
    ],
)
def test_what_does_not_fit_together_is_refused(objective, settings, culprit):
    with pytest.raises(SettingError, match=culprit):
        ObjectiveConfig.kinds[objective]().build(model(**settings), RANGE)


def test_the_schedule_of_random_windows():
    training = TrainingConfig(random_until=0.2, diversity=0.5, diversity_until=0.7)
    assert [diversity(training, progress) for progress in (0, 0.1, 0.2, 0.6, 0.7, 1)] == [1, 1, 0.5, 0.5, 0, 0]
