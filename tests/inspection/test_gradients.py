"""Gradients of one window against finite differences of the whole model, and what is built on them."""

import csv
import io

import pytest
import torch
from PIL import Image

from glimpsenet import create_model, geometry
from glimpsenet.inspection.arrows import LONGEST, SHORTEST, arrow_length, arrows
from glimpsenet.inspection.field import field
from glimpsenet.inspection.gradients import auxiliary_loss, last_loss, observe, own_loss, probe, total_loss
from glimpsenet.inspection.sweep import (
    PARAMETERS,
    NoRoomError,
    Sweep,
    admissible_range,
    animate_sweep,
    plot_sweeps,
    sweep,
)
from glimpsenet.losses import glimpse_loss
from glimpsenet.models.config import MipmapConfig, NoClueConfig
from glimpsenet.policies.baselines import CenterGlimpses, FixedGlimpses, RandomGlimpses

RANGE = (0.2, 0.5)


def make_model(**settings):
    torch.manual_seed(0)
    defaults = {"image_size": 40, "glimpse_size": 12, "sampling": MipmapConfig()}
    return create_model("glimpse_cnn", num_classes=5, in_channels=1, **(defaults | settings)).double()


@pytest.fixture(scope="module")
def scene():
    torch.manual_seed(1)
    # Smooth, so that finite differences see the slope that is there.
    image = torch.nn.functional.interpolate(torch.rand(1, 1, 5, 5, dtype=torch.float64), size=40, mode="bicubic")[0]
    return observe(make_model(), image.clamp(0, 1), 3)


def whole_model(scene, glimpse: int, window: torch.Tensor):
    """The model itself with all windows injected."""
    windows = dict(enumerate(scene.windows, 1)) | {glimpse: window.to(scene.windows)}
    return scene.model(scene.image[None], policy=FixedGlimpses(windows, otherwise=scene.model.policy))


@pytest.mark.parametrize("glimpse", [1, 2, 4])
def test_the_loss_is_that_of_the_whole_model_with_the_window_injected(scene, glimpse):
    window = torch.tensor([0.31, 0.2, -0.1])
    label = torch.tensor([scene.label])
    output = whole_model(scene, glimpse, window)
    losses = {"last": last_loss, "own": own_loss, "total": total_loss(0.6)}
    got = {name: probe(scene, glimpse, window[None], loss)[0].item() for name, loss in losses.items()}
    log_likelihood = output.logits.log_softmax(-1)[0, :, scene.label]
    assert got["last"] == pytest.approx(-log_likelihood[-1].item(), abs=1e-12)
    assert got["own"] == pytest.approx(-log_likelihood[glimpse - 1].item(), abs=1e-12)
    assert got["total"] == pytest.approx(glimpse_loss(output, label, 0.6).total.item(), abs=1e-12)
    if glimpse > 1:
        auxiliary = probe(scene, glimpse, window[None], auxiliary_loss)[0].item()
        expected = -output.auxiliary_logits.log_softmax(-1)[0, glimpse - 2, scene.label].item()
        assert auxiliary == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("loss", [last_loss, own_loss, auxiliary_loss, total_loss(0.6)])
def test_the_gradient_is_the_slope_of_the_loss_without_what_the_clue_says(scene, loss):
    """The clue is detached: finite differences must leave it where it was, so it is blinded here."""
    blind = observe(make_model(clue=NoClueConfig()), scene.image, 2)
    window = torch.tensor([[0.37, 0.11, -0.23]], dtype=torch.float64)
    _, gradient = probe(blind, 3, window, loss)
    shift = 1e-5
    for column in range(3):
        moved = window.repeat(2, 1)
        moved[0, column] += shift
        moved[1, column] -= shift
        ahead, behind = probe(blind, 3, moved, loss)[0].tolist()
        assert gradient[0, column].item() == pytest.approx((ahead - behind) / (2 * shift), rel=1e-4)


def test_the_gradient_is_the_one_training_sends_before_it_is_rescaled(scene):
    """Backpropagation through the model's own loop, the last window's raw output as the leaf."""
    model = scene.model
    model.zero_grad()
    bias = model.policy.fc.bias
    output = model(scene.image[None], policy=None)
    assert torch.equal(output.windows[0], scene.windows)
    # The last window influences nothing but the last answer, so the bias's gradient through it is the chain rule's.
    _, partial = probe(scene, 4, scene.windows[-1:], last_loss)
    fixed = FixedGlimpses({2: scene.windows[1].float(), 3: scene.windows[2].float()}, otherwise=model.policy)
    again = model(scene.image[None], policy=fixed)
    loss = last_loss(again, torch.tensor([scene.label]), 4).sum()
    (direct,) = torch.autograd.grad(loss, bias)
    (through_last,) = torch.autograd.grad(
        (model(scene.image[None], policy=fixed).windows[0, -1] * partial[0].double()).sum(), bias
    )
    torch.testing.assert_close(direct, through_last, rtol=1e-3, atol=1e-7)
    assert direct.abs().max() > 0


def test_frozen_and_random_policies_have_gradients_all_the_same():
    model = make_model().requires_grad_(False)
    image = torch.rand(1, 40, 40, dtype=torch.float64)
    for policy in (None, RandomGlimpses(RANGE), CenterGlimpses(RANGE, 12)):
        scene = observe(model, image, policy=policy)
        assert probe(scene, 2, scene.windows[1:2])[1].abs().max() > 0


def test_windows_that_vote_count_in_the_loss(scene):
    voting = observe(make_model(glimpse_ensemble=True).eval(), scene.image, 3)
    output = whole_model(voting, 2, window := torch.tensor([0.31, 0.2, -0.1]))
    loss = -output.logits[0, -1].log_softmax(-1)[3]
    assert probe(voting, 2, window[None])[0].item() == pytest.approx(loss.item(), abs=1e-12)
    assert probe(scene, 2, window[None])[0].item() != pytest.approx(loss.item(), abs=1e-3)


def test_without_label_the_predicted_class_is_taken(scene):
    assert observe(scene.model, scene.image).label == int(observe(scene.model, scene.image).logits[-1].argmax())


def test_what_cannot_be_is_refused(scene):
    with pytest.raises(ValueError, match="class 5 is out of range: the model has 5 classes, 0 to 4"):
        observe(scene.model, scene.image, 5)
    with pytest.raises(ValueError, match="no glimpse 5: the model takes glimpses 1 to 4"):
        probe(scene, 5, scene.windows[:1])
    with pytest.raises(ValueError, match="does not see the first glimpse"):
        probe(scene, 1, scene.windows[:1], auxiliary_loss)
    without = observe(make_model(auxiliary_classifier=False), scene.image)
    with pytest.raises(ValueError, match="no auxiliary classifier"):
        probe(without, 2, without.windows[1:2], auxiliary_loss)


def test_sweeps_run_over_the_admissible_range_and_fix_the_rest(scene):
    for name in PARAMETERS:
        result = sweep(scene, name, glimpse=3, points=7, scale_range=RANGE)
        assert geometry.lies_inside(result.windows).all()
        column = PARAMETERS.index(name)
        low, high = admissible_range(scene.windows[2], name, RANGE)
        torch.testing.assert_close(result.windows[:, column], torch.linspace(low, high, 7, dtype=torch.float64))
        others = [c for c in range(3) if c != column]
        torch.testing.assert_close(result.windows[:, others], scene.windows[2][others].expand(7, -1))
        losses, gradients = probe(scene, 3, result.windows)
        torch.testing.assert_close(result.loss.double(), losses.double(), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(result.gradient, gradients[:, column])


def test_the_admissible_range_by_hand():
    window = torch.tensor([0.3, 0.6, -0.1])
    assert admissible_range(window, "s", RANGE) == pytest.approx((0.2, 0.4))
    assert admissible_range(window, "tx", RANGE) == pytest.approx((-0.7, 0.7))
    with pytest.raises(NoRoomError, match="no room to sweep tx: the window 1,0,0 allows only 0"):
        admissible_range(torch.tensor([1.0, 0.0, 0.0]), "tx", RANGE)
    with pytest.raises(NoRoomError, match="no room to sweep s"):
        admissible_range(torch.tensor([0.5, 0.5, 0.0]), "s", (0.5, 0.5))


def synthetic(gradient: torch.Tensor) -> Sweep:
    values = torch.linspace(-0.5, 0.5, len(gradient))
    zeros = torch.zeros(len(gradient), 3)
    return Sweep("tx", 2, values, torch.zeros(len(gradient)), gradient, zeros, zeros)


def test_the_line_of_best_fit_by_hand():
    values = torch.linspace(-0.5, 0.5, 11)
    line = synthetic(3 * values + 0.25)
    assert (line.slope, line.intercept, line.r_squared) == pytest.approx((3, 0.25, 1), abs=1e-5)
    assert line.has_wanted_sign
    assert not synthetic(-values).has_wanted_sign
    alternating = synthetic(torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0]))
    assert (alternating.slope, alternating.r_squared) == pytest.approx((0, 0), abs=1e-6)
    assert synthetic(torch.ones(5)).r_squared == 0


def test_numbers_pictures_and_animation_are_written(scene, tmp_path):
    results = [sweep(scene, name, points=9, scale_range=RANGE) for name in PARAMETERS]
    results[1].save(tmp_path / "new" / "tx.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "new" / "tx.csv").read_text())))
    assert [float(row["tx"]) for row in rows] == pytest.approx(results[1].values.tolist(), rel=1e-4)
    assert [float(row["dL/dtx"]) for row in rows] == pytest.approx(results[1].gradient.tolist(), rel=1e-4)
    assert len(plot_sweeps(results).axes) == 6
    animate_sweep(scene, results[1], tmp_path / "tx.gif", frames=4)
    with Image.open(tmp_path / "tx.gif") as animation:
        assert animation.n_frames == 4
    measured = arrows(scene)
    assert measured.gradient.shape == (3, 3)
    measured.save(tmp_path / "arrows.png")
    assert (tmp_path / "arrows.png").stat().st_size > 5000


def test_the_field_is_the_loss_at_each_place(scene, tmp_path):
    result = field(scene, glimpse=2, points=5, scale=0.4)
    assert result.places[0, 0].tolist() == pytest.approx([-0.6, -0.6])
    assert result.places[1, 3].tolist() == pytest.approx([0.3, -0.3])  # row y, column x
    loss, gradient = probe(scene, 2, torch.tensor([[0.4, 0.3, -0.3]]))
    assert result.loss[1, 3].item() == pytest.approx(loss.item(), abs=1e-12)
    torch.testing.assert_close(result.gradient[1, 3], gradient[0, 1:], atol=1e-5, rtol=1e-3)
    result.save(tmp_path / "field.png")
    with pytest.raises(ValueError, match="scale 1 has no room to move"):
        field(scene, glimpse=1)


def test_arrows_are_as_long_as_derivatives_are_large_and_all_that_are_there_are_seen():
    lengths = arrow_length(torch.tensor([2.0, -1.0, 1e-6]), 2.0)
    assert lengths.tolist() == pytest.approx([-LONGEST, LONGEST / 2, -SHORTEST])
    assert arrow_length(torch.zeros(3), 0.0).abs().tolist() == [0, 0, 0]


def test_arrows_say_whose_loss_they_are_of_and_their_scale(scene):
    measured = arrows(scene, classes=[f"class {place}" for place in range(scene.model.num_classes)])
    whole = measured.plot().axes[0]
    assert f"loss of class class {scene.label}:" in whole.get_title()
    assert f"{float(measured.gradient.abs().max()):.3g} nats" in whole.get_xlabel()


def test_arrows_need_windows():
    scene = observe(make_model(num_glimpses=1), torch.rand(1, 40, 40, dtype=torch.float64))
    with pytest.raises(ValueError, match="only the first glimpse"):
        arrows(scene)
