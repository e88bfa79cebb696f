"""Gradient quality against numbers worked out by hand, by plain loops, and on sweeps whose worth is known."""

import csv
import itertools
import json
import math
import statistics

import numpy as np
import pytest
import torch

from glimpsenet.data.config import DigitsConfig
from glimpsenet.data.digits import DigitScenes
from glimpsenet.inspection.gradients import observe
from glimpsenet.inspection.quality import (
    MEASURES,
    SweepQuality,
    compare_qualities,
    format_table,
    gradient_quality,
    measure,
    pool,
    summarize,
)
from glimpsenet.inspection.sweep import Sweep
from glimpsenet.models.build import create_model
from glimpsenet.models.config import MipmapConfig
from glimpsenet.models.sampling import BilinearGlimpses, LinearizedGlimpses, MipmapGlimpses
from glimpsenet.policies.baselines import CenterGlimpses, FixedGlimpses, RandomGlimpses

RANGE = (0.2, 0.5)


def a_sweep(gradient: np.ndarray, loss: np.ndarray) -> Sweep:
    """Of tx, from -0.6 to 0.6."""
    values = torch.linspace(-0.6, 0.6, len(gradient), dtype=torch.float64)
    windows = torch.stack([torch.full_like(values, 0.4), values, torch.zeros_like(values)], 1)
    return Sweep("tx", 2, values, torch.tensor(loss), torch.tensor(gradient), windows, torch.zeros(len(values), 3))


def test_a_perfect_line_is_as_good_as_can_be():
    places = np.linspace(-0.6, 0.6, 100)
    quality = measure(a_sweep(3 * (places - 0.1), 1.5 * (places - 0.1) ** 2))
    assert quality == pytest.approx((1, 1, 1, quality.signal_to_noise), abs=1e-9)
    # var of 0..99 in glimpses of d is d^2 100 101 / 12, the noise d^2 / 2.
    assert quality.signal_to_noise == pytest.approx(100 * 101 / 6 - 1)
    wrong_way = measure(a_sweep(-3 * places, -1.5 * places**2))
    assert (wrong_way.wanted_sign, wrong_way.cosine) == (0, pytest.approx(1))


def test_pure_noise_is_worth_nothing():
    rng = np.random.default_rng(0)
    noise = [measure(a_sweep(*rng.standard_normal((2, 400)))) for _ in range(50)]
    sign, r_squared, cosine, ratio = np.mean(noise, 0)
    assert sign == pytest.approx(0.5, abs=0.2)
    assert r_squared < 0.01
    assert cosine == pytest.approx(0, abs=0.02)
    assert ratio < 0.1


def test_a_flat_gradient_has_neither_signal_nor_direction():
    quality = measure(a_sweep(np.zeros(40), np.zeros(40)))
    assert quality.r_squared == quality.cosine == quality.signal_to_noise == 0


@pytest.mark.parametrize("points", [20, 41, 100])
def test_each_number_equals_its_definition_written_out(points):
    rng = np.random.default_rng(points)
    places = np.linspace(-0.6, 0.6, points)
    gradient = places + rng.normal(0, 0.3, points)
    loss = places**2 / 2 + rng.normal(0, 0.02, points)
    quality = measure(a_sweep(gradient, loss))

    noise = sum((b - a) ** 2 for a, b in itertools.pairwise(gradient)) / (points - 1) / 2
    assert quality.signal_to_noise == pytest.approx(max(statistics.variance(gradient) - noise, 0) / noise)
    correlation = statistics.correlation(list(places), list(gradient))
    assert (quality.r_squared, quality.wanted_sign) == (pytest.approx(correlation**2), float(correlation > 0))

    reach = {20: 1, 41: 2, 100: 5}[points]  # 5% of the range to either side
    smooth = {i: statistics.fmean(loss[i - reach : i + reach + 1]) for i in range(reach, points - reach)}
    first, last, h = reach, points - reach - 1, places[1] - places[0]
    slope = {i: (smooth[i + 1] - smooth[i - 1]) / (2 * h) for i in range(first + 1, last)}
    slope[first] = (-3 * smooth[first] + 4 * smooth[first + 1] - smooth[first + 2]) / (2 * h)
    slope[last] = (3 * smooth[last] - 4 * smooth[last - 1] + smooth[last - 2]) / (2 * h)
    dot = sum(slope[i] * gradient[i] for i in slope)
    lengths = math.sqrt(sum(slope[i] ** 2 for i in slope) * sum(gradient[i] ** 2 for i in slope))
    assert quality.cosine == pytest.approx(dot / lengths)


def some_sweeps(count: int) -> list[SweepQuality]:
    rng = np.random.default_rng(count)
    return [SweepQuality(float(i % 10 < 7), *rng.random(2).tolist(), rng.exponential()) for i in range(count)]


def test_estimates_are_means_and_medians_within_intervals_that_shrink_with_more_images():
    widths = []
    for count in (20, 80, 320):
        measured = some_sweeps(count)
        quality = summarize("s", [measured], count + 3)
        sign, r_squared, cosine, ratio = zip(*measured, strict=True)
        expected = statistics.fmean(sign), statistics.median(r_squared), statistics.fmean(cosine)
        assert [e.value for e in quality.estimates.values()] == pytest.approx([*expected, statistics.median(ratio)])
        assert (quality.num_sweeps, quality.num_left_out) == (count, 3)
        assert all(e.low < e.value < e.high for e in quality.estimates.values())
        widths.append([e.high - e.low for e in quality.estimates.values()])
    assert (np.diff(widths, axis=0) < 0).all()
    # Of a mean, the interval is the normal one where there are many: +- 1.96 standard errors.
    assert widths[-1][2] == pytest.approx(2 * 1.96 * np.std(cosine) / math.sqrt(320), rel=0.1)
    assert summarize("s", [measured], 323) == quality != summarize("s", [measured], 323, seed=1)


def test_the_interval_of_a_share_is_wilsons_and_has_width_where_all_sweeps_agree():
    agreed = summarize("tx", [[SweepQuality(1.0, 0.5, 0.5, 1.0)] * 20], 20).wanted_sign
    z = statistics.NormalDist().inv_cdf(0.975)
    assert (agreed.value, agreed.low, agreed.high) == pytest.approx((1, 20 / (20 + z**2), 1))


def test_one_sweep_has_no_interval_but_that_of_a_share():
    quality = summarize("s", [[SweepQuality(1.0, 0.2, 0.5, 1.0)]], 1)
    assert quality.wanted_sign.low < 0.3
    assert math.isnan(quality.cosine.low)
    assert str(quality.cosine) == "0.50"


def test_models_pool_by_resampling_images_within_each():
    """Two models that differ much, each of them always the same: the pooled cosine is certain about these two."""
    poor, good = ([SweepQuality(1.0, 0.5, cosine, 1.0)] * 10 for cosine in (0.1, 0.9))
    quality = summarize("s", [poor, good], 21)
    assert (quality.num_sweeps, quality.num_left_out) == (20, 1)
    assert (quality.cosine.value, quality.cosine.low, quality.cosine.high) == pytest.approx((0.5, 0.5, 0.5))
    together = summarize("s", [poor + good], 21).cosine
    assert together.high - together.low > 0.2


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    settings = {
        "num_glimpses": 2,
        "image_size": 40,
        "glimpse_size": 10,
        "scale_range": RANGE,
        "sampling": MipmapConfig(),
    }
    return create_model("glimpse_cnn", num_classes=10, in_channels=1, **settings).eval()


@pytest.fixture(scope="module")
def samples():
    scenes = DigitScenes(DigitsConfig(), "val", canvas=40)
    return [(scenes[0, index].image, scenes[0, index].label) for index in range(4)]


def test_quality_of_a_model_under_any_policy_and_generator(model, samples, tmp_path):
    generators = {"bilinear": BilinearGlimpses(10), "mipmap": model.generator, "linearized": LinearizedGlimpses(10)}
    model.requires_grad_(False)
    named = {
        name: gradient_quality(
            model, samples, generator=generator, points=20, scale_range=RANGE, policy=RandomGlimpses(RANGE)
        )
        for name, generator in generators.items()
    }
    model.requires_grad_(True)
    for quality in named.values():
        assert [part.num_sweeps + part.num_left_out for part in quality.parameters] == [4, 4, 4]
        assert all(0 <= part.wanted_sign.value <= 1 and abs(part.cosine.value) <= 1 for part in quality.parameters)
    # Windows and losses are the same; only the gradient differs.
    assert named["bilinear"] != named["linearized"]
    assert named["mipmap"] == gradient_quality(
        model, samples, points=20, scale_range=RANGE, policy=RandomGlimpses(RANGE)
    )

    table = format_table(named)
    assert len(table) == 1 + 3 * 3
    assert [row[:2] for row in table[1:5]] == [
        ["bilinear", "s"],
        ["bilinear", "tx"],
        ["bilinear", "ty"],
        ["mipmap", "s"],
    ]
    assert {len(row) for row in table} == {3 + len(MEASURES)}
    assert len(compare_qualities(named).axes) == len(MEASURES)
    for suffix in ("json", "csv", "png"):
        named["mipmap"].save(tmp_path / "new" / f"quality.{suffix}")
    assert json.loads((tmp_path / "new/quality.json").read_text()) == named["mipmap"].to_dict()
    with open(tmp_path / "new/quality.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["parameter"] for row in rows] == ["s", "tx", "ty"]
    assert float(rows[1]["cosine_low"]) == pytest.approx(named["mipmap"].tx.cosine.low, rel=1e-5)
    assert (tmp_path / "new/quality.png").read_bytes().startswith(b"\x89PNG")


def test_every_sample_may_have_a_policy_of_its_own(model, samples):
    places = [(0.3, 0.1, 0.2), (0.3, -0.1, 0.4)]
    own = [FixedGlimpses({1: (1.0, 0.0, 0.0), 2: place}, CenterGlimpses(RANGE, 10)) for place in places]
    both = gradient_quality(model, samples[:2], points=20, scale_range=RANGE, policy=own)
    one_by_one = [
        gradient_quality(model, samples[i : i + 1], points=20, scale_range=RANGE, policy=own[i]) for i in range(2)
    ]
    assert both.tx.cosine.value == pytest.approx(sum(one.tx.cosine.value for one in one_by_one) / 2)
    pooled = pool(one_by_one)
    assert (pooled.num_images, pooled.tx.num_sweeps, pooled.tx.wanted_sign) == (2, 2, both.tx.wanted_sign)
    assert pooled.tx.cosine.value == pytest.approx(both.tx.cosine.value)
    other = gradient_quality(model, samples[:1], points=21, scale_range=RANGE, policy=own[0])
    with pytest.raises(ValueError, match="same glimpse and number of points"):
        pool([*one_by_one, other])
    with pytest.raises(ValueError, match="shorter"):
        gradient_quality(model, samples[:2], points=20, scale_range=RANGE, policy=own[:1])


def test_images_without_room_are_left_out_and_counted(model, samples, tmp_path):
    """A window in the corner cannot grow beyond the range's smallest scale, but can move."""
    corner = FixedGlimpses({1: (1.0, 0.0, 0.0), 2: (0.2, 0.8, 0.8)}, CenterGlimpses(RANGE, 10))
    quality = gradient_quality(model, samples[:2], points=20, scale_range=RANGE, policy=corner)
    assert [(part.num_sweeps, part.num_left_out) for part in quality.parameters] == [(0, 2), (2, 0), (2, 0)]
    assert quality.to_dict()["s"]["cosine"] == {"value": None, "low": None, "high": None}
    assert format_table({"run": quality})[1][2:] == ["0 (2 left out)", "-", "-", "-", "-"]
    for suffix in ("json", "csv", "png"):
        quality.save(tmp_path / f"quality.{suffix}")
    assert "NaN" not in (tmp_path / "quality.json").read_text()


def test_another_generator_leaves_the_model_as_it_is(model):
    before, image = model.generator, torch.rand(1, 40, 40)
    own, same, other = (observe(model, image, generator=g) for g in (None, MipmapGlimpses(10), BilinearGlimpses(10)))
    assert model.generator is before
    assert same.logits.equal(own.logits)
    assert not other.logits.equal(own.logits)
    with pytest.raises(ValueError, match="10 pixels, the generator makes 8"):
        observe(model, image, generator=BilinearGlimpses(8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": []}, "needs one image or more"),
        ({"points": 19}, "20 points per sweep or more, got 19"),
        ({"glimpse": 3}, "no glimpse 3"),
        ({"samples": [(torch.zeros(1, 40, 40), 10)]}, "class 10 is out of range"),
    ],
)
def test_what_cannot_be_measured_is_refused(model, samples, change, message):
    with pytest.raises(ValueError, match=message):
        gradient_quality(model, **{"samples": samples, "scale_range": RANGE, **change})
