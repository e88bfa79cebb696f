"""The curve of exit thresholds, by hand."""

import pytest
import torch

from glimpsenet.errors import UserError
from glimpsenet.inference.exit_curve import exit_curve


def logit(probability: float) -> list[float]:
    """Two classes, the second with this probability."""
    return [0.0, float(torch.tensor(probability).logit())]


@pytest.fixture
def curve():
    # Three images, two glimpses. Sure and right; unsure and wrong, then right; sure and right, then wrong.
    glimpses = [[0.95, 0.97], [0.4, 0.8], [0.9, 0.2]]
    return exit_curve(torch.tensor([[logit(p) for p in image] for image in glimpses]), torch.tensor([1, 1, 1]))


def test_every_threshold_by_hand(curve):
    assert curve.thresholds.tolist() == pytest.approx([0.0, 0.6, 0.9, 0.95, 1.0])
    third = 1 / 3
    assert curve.accuracy.tolist() == pytest.approx([2 * third, 1.0, 2 * third, 2 * third, 2 * third])
    first = [1, 2 * third, third, 0, 0]
    torch.testing.assert_close(curve.exits, torch.tensor([[share, 1 - share] for share in first]))
    assert curve.cost().tolist() == pytest.approx([2 - share for share in first])
    assert curve.cost([10.0, 30.0]).tolist() == pytest.approx([30 - 20 * share for share in first])


def test_the_strictest_rule_that_is_cheap_enough(curve):
    assert curve.for_cost(1.4).threshold == pytest.approx(0.6)
    assert curve.for_cost(2).threshold == 1
    assert curve.for_cost(10, [10.0, 30.0]).threshold == 0
    with pytest.raises(UserError, match="one look costs 10"):
        curve.for_cost(9, [10.0, 30.0])


def test_the_laxest_rule_that_is_good_enough_from_there_on(curve):
    assert curve.for_accuracy(0.6).threshold == 0
    with pytest.raises(UserError, match=r"all looks have 0\.666"):
        curve.for_accuracy(0.9)  # 0.6 alone is better, by luck: stricter ones are not


def test_a_rule_for_what_accuracy_may_fall_by_reckons_with_chance():
    # 400 images that are sure at once, of which 4 would have been put right by the second look; and 400 that are not.
    first = torch.tensor([[logit(0.9)] * 400, [logit(0.6)] * 400]).flatten(0, 1)
    second = torch.tensor([logit(0.95)]).expand(800, -1)
    labels = torch.ones(800, dtype=torch.long)
    first[:4] = -first[:4]  # as sure, and wrong
    curve = exit_curve(torch.stack([first, second], 1), labels)
    lost = 4 / 800
    assert float(curve.accuracy[0]) == pytest.approx(1 - lost)
    assert float(curve.fall[0]) == pytest.approx(lost + 1.645 * (lost * (1 - lost) / 800) ** 0.5, rel=1e-4)
    assert curve.for_accuracy(1 - lost).threshold == 0
    assert curve.for_fall(lost).threshold == pytest.approx(0.9)  # on images like these it may be more
    assert curve.for_fall(0.01).threshold == 0
    assert curve.for_fall(0).threshold == pytest.approx(0.9)
    with pytest.raises(UserError, match="allow 0 or more"):
        curve.for_fall(-0.1)


def test_one_look_has_nothing_to_stop():
    curve = exit_curve(torch.zeros(3, 1, 2), torch.zeros(3, dtype=torch.long))
    assert curve.exits.tolist() == [[1.0], [1.0]]
