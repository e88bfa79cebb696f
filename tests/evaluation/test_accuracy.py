"""Metrics against counting by hand; evaluation under every policy."""

import pytest
import torch

from glimpsenet import create_model
from glimpsenet.data.config import DigitsConfig
from glimpsenet.data.digits import CLASSES, DigitScenes
from glimpsenet.data.loading import InOrder, create_loader
from glimpsenet.data.sample import Batch
from glimpsenet.errors import UserError
from glimpsenet.evaluation.accuracy import evaluate, evaluate_all
from glimpsenet.evaluation.metrics import ScanpathMetrics
from glimpsenet.models.glimpsenet import GlimpseOutput


def test_metrics_by_hand():
    # Two images, three glimpses; the first has a box at the top left quarter of 40 px, the second's is unknown.
    boxes = torch.tensor([[0.0, 0.0, 20.0, 20.0], [torch.nan] * 4])
    whole, hit, miss = [1.0, 0.0, 0.0], [0.5, -0.5, -0.5], [0.5, 0.5, 0.5]
    logits = torch.tensor([[[2.0, 0.0], [2.0, 0.0], [0.0, 2.0]], [[2.0, 0.0], [0.0, 2.0], [0.0, 2.0]]])
    output = GlimpseOutput(
        logits=logits,
        windows=torch.tensor([[whole, hit, miss], [whole, hit, hit]]),
        features=torch.zeros(2, 3, 1),
        auxiliary_logits=None,
    )
    batch = Batch(torch.arange(2), torch.empty(0), torch.tensor([0, 1]), boxes, torch.empty(0), [])
    metrics = ScanpathMetrics(num_glimpses=3, num_classes=2, image_size=40)
    for part in (slice(0, 1), slice(1, 2)):
        piece = GlimpseOutput(logits[part], output.windows[part], output.features[part], None)
        metrics.update(piece, batch._replace(labels=batch.labels[part], boxes=boxes[part]))
    result = metrics.compute()
    assert result["num_images"] == 2
    assert result["accuracy"] == [0.5, 1.0, 0.5]
    assert result["mean_scale"] == [1.0, 0.5, 0.5]
    assert result["hit_rate"] == [0.0, 1.0, 0.0]  # of the one image with a box; the first glimpse is no hit
    assert result["found_rate"] == [0.0, 1.0, 1.0]
    right, wrong = 0.126928, 2.126928  # -log softmax([2, 0])
    assert result["loss"] == pytest.approx([(right + wrong) / 2, right, (right + wrong) / 2], abs=1e-5)
    assert metrics.confusion.tolist() == [[0, 1], [0, 1]]


def test_rates_are_none_without_boxes():
    metrics = ScanpathMetrics(1, 2, 40)
    output = GlimpseOutput(torch.zeros(1, 1, 2), torch.zeros(1, 1, 3), torch.zeros(1, 1, 1), None)
    unknown = torch.full((1, 4), torch.nan)
    metrics.update(
        output, Batch(torch.zeros(1), torch.empty(0), torch.zeros(1, dtype=torch.long), unknown, torch.empty(0), [])
    )
    assert metrics.compute()["hit_rate"] is None
    assert metrics.compute()["found_rate"] is None


@pytest.fixture(scope="module")
def everything():
    torch.manual_seed(0)
    model = create_model("glimpse_cnn", num_classes=10, in_channels=1, image_size=80, glimpse_size=20)
    dataset = DigitScenes(DigitsConfig(val_scenes=50), "val")
    loader = create_loader(dataset, InOrder(50), 16)
    settings = {"scale_range": (0.2, 0.5), "image_size": 80, "classes": CLASSES}
    return model, loader, settings


def test_evaluation_under_every_policy(everything):
    model, loader, settings = everything
    result = evaluate_all(model, loader, has_boxes=True, **settings)
    policies = result["policies"]
    assert list(policies) == ["learned", "random", "center", "none", "oracle"]
    assert policies["none"]["accuracy"] == policies["learned"]["accuracy"][:1]
    assert policies["oracle"]["hit_rate"] == [0, 1, 1, 1]
    assert policies["center"]["mean_scale"] == [1, 0.25, 0.25, 0.25]
    for values in policies.values():
        assert values["num_images"] == 50
        matrix = torch.tensor(values["confusion_matrix"])
        assert matrix.diag().sum().item() / 50 == pytest.approx(values["accuracy"][-1])
        assert matrix.sum() == 50


def test_evaluation_is_one_deterministic_pass(everything):
    model, loader, settings = everything
    one = evaluate(model, loader, policy="random", **settings)
    assert one == evaluate(model, loader, policy="random", **settings)
    other = create_loader(loader.dataset, InOrder(50), 16)
    assert one == evaluate(model, other, policy="random", **settings)


def test_gain_due_to_placement_is_the_papers(everything, monkeypatch):
    accuracies = {"learned": 0.8399, "random": 0.8133, "none": 0.752}
    monkeypatch.setattr(
        "glimpsenet.evaluation.accuracy.evaluate",
        lambda *_, policy, **__: {"accuracy": [accuracies.get(policy, 0.5)]},
    )
    share = evaluate_all(None, [], has_boxes=False)["gain_due_to_placement"]
    assert share == pytest.approx(0.30, abs=0.005)


def test_an_empty_data_set_is_an_error(everything):
    model, _, settings = everything
    with pytest.raises(UserError, match="nothing to evaluate on"):
        evaluate(model, [], **settings)
