import numpy as np
import pytest
import torch

from glimpsenet.data.imagenet import CORRUPTIONS
from glimpsenet.errors import UserError
from glimpsenet.robustness.corruptions import SEVERITIES, corrupt
from glimpsenet.robustness.intervals import accuracy_with_interval, paired_difference, wilson_interval

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def images(channels: int = 3) -> torch.Tensor:
    """Three smooth pictures of 48 pixels."""
    ramp = torch.linspace(0, 1, 48)
    picture = (ramp[:, None] * ramp * 0.6 + 0.2).expand(channels, 48, 48)
    return torch.stack([picture, picture.flip(1), picture.flip(2)])


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_each_corruption_changes_more_with_severity_and_repeats(corruption):
    clean = images()
    made = [corrupt(clean, corruption, severity, seed=1) for severity in (1, 5)]
    for after in made:
        assert after.shape == clean.shape
        assert 0 <= after.min() <= after.max() <= 1
    changes = [(after - clean).abs().mean().item() for after in made]
    assert 0 < changes[0] < changes[1]
    assert torch.equal(corrupt(clean, corruption, 5, seed=1), made[1])


def test_what_becomes_of_an_image_follows_from_its_place_not_its_batch():
    state = np.random.get_state()[1].tolist()
    for name in ("gaussian_noise", "impulse_noise", "glass_blur", "motion_blur", "fog", "snow", "frost"):
        whole = corrupt(images(), name, 3)
        assert torch.equal(corrupt(images()[1:], name, 3, first=1), whole[1:]), name
    assert np.random.get_state()[1].tolist() == state
    assert not torch.equal(
        corrupt(images(), "gaussian_noise", 3, seed=1), corrupt(images(), "gaussian_noise", 3, seed=2)
    )


def test_grey_images_stay_grey():
    after = corrupt(images(1), "brightness", 2)
    assert after.shape == (3, 1, 48, 48)
    torch.testing.assert_close(after, corrupt(images(3), "brightness", 2)[:, :1], atol=0.02, rtol=0)


def test_images_that_are_too_small_are_refused():
    with pytest.raises(UserError, match="32 pixels or more a side; these have 16"):
        corrupt(torch.zeros(1, 3, 16, 16), "fog", 1)
    assert SEVERITIES == (1, 2, 3, 4, 5)


# ---- intervals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("right", "images"), [(0, 50), (1, 50), (25, 50), (50, 50), (190, 200)])
def test_wilsons_interval_is_scipys(right, images):
    from scipy.stats import binomtest

    theirs = binomtest(right, images).proportion_ci(method="wilson")
    assert wilson_interval(right, images) == pytest.approx((theirs.low, theirs.high), abs=1e-6)


def test_accuracies_come_with_their_interval():
    told = accuracy_with_interval(torch.tensor([True, False, True, True]))
    assert told["accuracy"] == 0.75
    assert told["interval"] == wilson_interval(3, 4)


def test_paired_differences_are_surer_than_the_accuracies():
    """Two models that differ on two images of 100: hard to see in accuracies, plain in pairs."""
    generator = torch.Generator().manual_seed(0)
    one = (torch.rand(100, generator=generator) < 0.6).double()
    other = one.clone()
    wrong = one.nonzero()[:8, 0]
    other[wrong] = 0
    told = paired_difference([one], [other])
    assert told["difference"] == pytest.approx(0.08)
    low, high = told["interval"]
    assert 0.02 < low < 0.08 < high < 0.15
    assert paired_difference([one], [one]) == {"difference": 0.0, "interval": (0.0, 0.0)}
