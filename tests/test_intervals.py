"""Intervals: Wilson's formula written out, the bootstrap where the answer is known."""

import math

import numpy as np
import pytest
import torch

from glimpsenet.intervals import accuracy_with_interval, bootstrap_interval, paired_difference, wilson_interval

Z95 = 1.959963984540054


@pytest.mark.parametrize(("right", "images"), [(0, 50), (1, 50), (25, 50), (50, 50), (190, 200)])
def test_wilsons_interval_is_his_formula(right, images):
    share, spread = right / images, Z95**2 / images
    half = Z95 * math.sqrt(share * (1 - share) / images + spread / (4 * images))
    expected = [(share + spread / 2 + sign * half) / (1 + spread) for sign in (-1, 1)]
    assert wilson_interval(right, images) == pytest.approx(expected, abs=1e-12)


def test_accuracies_come_with_their_interval():
    told = accuracy_with_interval(torch.tensor([True, False, True, True]))
    assert told["accuracy"] == 0.75
    assert told["interval"] == wilson_interval(3, 4)


def test_the_bootstrap_of_a_mean_is_as_wide_as_its_standard_error_says():
    values = np.random.default_rng(1).normal(size=400)
    low, high = bootstrap_interval([values], np.random.default_rng(0))
    half = Z95 * values.std() / math.sqrt(len(values))
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_images_are_resampled_within_their_group():
    """Groups that differ only from each other: no resampling changes the mean of all."""
    groups = [np.zeros(5), np.ones(15)]
    assert bootstrap_interval(groups, np.random.default_rng(0)) == (0.75, 0.75)


def test_paired_differences_are_surer_than_the_accuracies():
    """Two models that differ on eight images of 100: hard to see in accuracies, plain in pairs."""
    generator = torch.Generator().manual_seed(0)
    one = (torch.rand(100, generator=generator) < 0.6).double()
    other = one.clone()
    wrong = one.nonzero()[:8, 0]
    other[wrong] = 0
    told = paired_difference([one], [other])
    assert told["difference"] == pytest.approx(0.08)
    low, high = told["interval"]
    assert 0.02 < low < 0.08 < high < 0.15
    assert paired_difference([one], [other]) == told
    assert paired_difference([one], [one]) == {"difference": 0.0, "interval": (0.0, 0.0)}


def test_a_difference_on_one_image_may_be_anything():
    assert paired_difference([torch.ones(1)], [torch.zeros(1)]) == {"difference": 1.0, "interval": (-1.0, 1.0)}
