import numpy as np
import pytest
import torch

from glimpsenet.data.imagenet import CORRUPTIONS
from glimpsenet.errors import UserError
from glimpsenet.robustness.config import SEVERITIES
from glimpsenet.robustness.corruptions import corrupt

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
    with pytest.raises(UserError, match="32 pixels or more; these images have 16"):
        corrupt(torch.zeros(1, 3, 16, 16), "fog", 1)
    assert SEVERITIES == (1, 2, 3, 4, 5)
