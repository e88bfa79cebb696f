"""Early exit against the full pass: the same answers, from less work."""

import pytest
import torch
import torch.nn.functional as F

from glimpsenet import create_model
from glimpsenet.errors import SettingError
from glimpsenet.inference.early_exit import ExitRule, Predictor, exit_scores
from glimpsenet.inference.exit_curve import exit_curve

KINDS = [
    {"policy": "linear", "sampling": "bilinear"},
    {"policy": "spatiotemporal", "sampling": "mipmap", "batch_norm": "separate"},
    {"policy": "tokens", "sampling": "mipmap", "clue": "positional"},
    {"policy": "linear", "fusion": "none"},
]


def small_model(**settings):
    torch.manual_seed(0)
    defaults = {"num_classes": 5, "in_channels": 1, "image_size": 40, "glimpse_size": 12}
    model = create_model("glimpse_cnn", **{**defaults, **settings})
    if settings.get("policy") == "tokens":
        torch.nn.init.normal_(model.policy.score.weight)  # else all windows are as good
    torch.nn.init.normal_(model.classifier.weight, std=0.5)
    return model.eval()


def smooth_images(count: int) -> torch.Tensor:
    return F.interpolate(torch.rand(count, 1, 6, 6), size=40, mode="bilinear")


def full_pass(model, images):
    with torch.inference_mode():
        return model(model.normalization(images))


@pytest.fixture(params=KINDS, ids=lambda kind: "-".join(kind.values()))
def model(request):
    return small_model(**request.param)


def test_a_threshold_that_never_triggers_is_the_full_pass(model):
    images = smooth_images(6)
    full, output = full_pass(model, images), Predictor(model)(images)
    torch.testing.assert_close(output.glimpse_logits, full.logits)
    torch.testing.assert_close(output.windows, full.windows)
    torch.testing.assert_close(output.logits, full.logits[:, -1])
    assert output.num_glimpses.tolist() == [4] * 6


def test_each_image_stops_by_itself_with_the_answer_of_the_full_pass_then(model):
    images = smooth_images(24)
    full = full_pass(model, images)
    scores = exit_scores(full.logits, "confidence")
    rule = ExitRule(float(scores[:, 0].median()))
    output = Predictor(model, rule)(images)
    for row, looks in enumerate(output.num_glimpses.tolist()):
        assert looks == next((t for t in (1, 2, 3) if scores[row, t - 1] > rule.threshold), 4)
        torch.testing.assert_close(output.logits[row], full.logits[row, looks - 1], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(output.glimpse_logits[row, :looks], full.logits[row, :looks], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(output.windows[row, :looks], full.windows[row, :looks], atol=1e-5, rtol=1e-4)
        assert output.glimpse_logits[row, looks:].isnan().all()
        assert output.windows[row, looks:].isnan().all()
    assert len(set(output.num_glimpses.tolist())) > 1


def test_finished_images_cost_nothing_more(monkeypatch):
    model, images, batches = small_model(), smooth_images(16), []
    forward = type(model.backbone).forward

    def spy(self, glimpse, **settings):
        batches.append(len(glimpse))
        return forward(self, glimpse, **settings)

    monkeypatch.setattr(type(model.backbone), "forward", spy)
    scores = exit_scores(full_pass(model, images).logits, "margin")
    batches.clear()
    output = Predictor(model, ExitRule(float(scores[:, 0].median()), "margin"))(images)
    left = [int((output.num_glimpses >= glimpse).sum()) for glimpse in range(1, 5)]
    assert batches == [count for count in left if count]
    batches.clear()
    Predictor(model, ExitRule(0.0))(images)
    assert batches == [16]


def test_scores_by_hand():
    logits = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    torch.testing.assert_close(exit_scores(logits, "confidence"), torch.tensor([0.5, 0.880797]))
    torch.testing.assert_close(exit_scores(logits, "margin"), torch.tensor([0.0, 0.761594]))
    assert exit_scores(torch.zeros(3, 1), "margin").tolist() == [1, 1, 1]


def test_images_as_read_are_taken_as_they_are():
    model = small_model()
    pixels = torch.randint(0, 256, (3, 1, 40, 40), dtype=torch.uint8)
    torch.testing.assert_close(Predictor(model)(pixels).logits, Predictor(model)(pixels.float() / 255).logits)
    with pytest.raises(ValueError, match="must be square"):
        Predictor(model)(torch.rand(1, 1, 40, 30))


@pytest.mark.parametrize("threshold", [-0.1, 1.1])
def test_a_threshold_is_a_probability(threshold):
    with pytest.raises(SettingError, match=r"0 to 1; got"):
        ExitRule(threshold)


def test_the_curve_says_what_the_predictor_does():
    model, images, labels = small_model(), smooth_images(60), torch.randint(0, 5, (60,))
    curve = exit_curve(full_pass(model, images).logits, labels)
    for wanted in (1.5, 2.5, 4.0):
        rule = curve.for_cost(wanted)
        place = curve.thresholds.tolist().index(rule.threshold)
        output = Predictor(model, rule)(images)
        assert float(output.num_glimpses.double().mean()) == pytest.approx(float(curve.cost()[place]), abs=0.04)
        right = (output.logits.argmax(-1) == labels).double().mean()
        assert float(right) == pytest.approx(float(curve.accuracy[place]), abs=0.04)
        assert float(output.num_glimpses.double().mean()) <= wanted + 0.04
