import json
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from glimpsenet.data.config import DigitsConfig
from glimpsenet.data.digits import open_digits
from glimpsenet.data.loading import InOrder, create_loader
from glimpsenet.data.sample import Batch
from glimpsenet.errors import UserError
from glimpsenet.geometry import window_to_box
from glimpsenet.inspection.dataset import DatasetScanpaths, repeats, scan_dataset, union_share
from glimpsenet.models.build import build_model
from glimpsenet.models.config import ModelConfig
from glimpsenet.policies.baselines import CenterGlimpses, RandomGlimpses

FIRST = [1.0, 0.0, 0.0]


def paths(*images: list[list[float]], boxes: Tensor | None = None) -> DatasetScanpaths:
    """Images with these windows, all of them answered right, 20 pixels a side."""
    count = len(images)
    return DatasetScanpaths(
        windows=torch.tensor([[FIRST, *windows] for windows in images]),
        correct=torch.ones(count, dtype=torch.bool),
        boxes=torch.full((count, 4), math.nan) if boxes is None else boxes,
        labels=torch.zeros(count, dtype=torch.long),
        predicted=torch.zeros(count, dtype=torch.long),
        image_size=20,
        classes=["a", "b"],
        right=[],
        wrong=[],
    )


SAME = [[0.4, 0.1, 0.2]] * 3
APART = [[0.2, -0.5, -0.5], [0.2, 0.5, -0.5], [0.2, 0.5, 0.5]]
HALF = [[0.5, -0.5, 0.0], [0.5, 0.0, 0.0], [0.5, 0.5, 0.0]]  # each overlaps the one before by half: IoU 1/3


def test_distributions_by_hand():
    result = paths([[0.2, 0.0, -0.5]], [[0.4, 0.0, 0.5]]).to_dict()["windows"]
    assert result["s"][0]["mean"] == pytest.approx(0.3)
    assert result["s"][0]["std"] == pytest.approx(0.1)
    assert result["s"][0]["quantiles"]["0.25"] == pytest.approx(0.25)
    assert result["ty"][0]["std"] == pytest.approx(0.5)
    assert len(result["tx"]) == 1


def test_saccades_are_between_windows_and_leave_the_first_glimpse_out():
    result = paths(SAME, APART, [[0.1, 0.0, 0.0], [0.1, 0.3, 0.4], [0.1, 0.3, 0.0]])
    assert result.saccades.tolist() == [[0, 0], [1, 1], [pytest.approx(0.5), pytest.approx(0.4)]]


def test_coverage_of_known_windows():
    nested, outside = [[0.5, 0.0, 0.0], [0.1, 0.1, 0.1], [0.5, 0.0, 0.0]], [[0.5, 1.0, 1.0]] * 3
    shares = paths(SAME, APART, HALF, nested, outside).coverage
    torch.testing.assert_close(shares, torch.tensor([0.16, 0.12, 0.5, 0.25, 0.0625]))


def test_coverage_is_that_of_a_fine_raster():
    torch.manual_seed(0)
    windows = torch.rand(20, 4, 3) * torch.tensor([0.5, 1.0, 1.0]) - torch.tensor([0.0, 0.5, 0.5])
    ticks = (torch.arange(500) + 0.5) / 250 - 1
    inside = [(ticks - windows[..., axis, None]).abs() < windows[..., :1] for axis in (1, 2)]
    raster = (inside[0][..., None, :] & inside[1][..., :, None]).any(1).double().mean((1, 2)).float()
    torch.testing.assert_close(union_share(windows), raster, atol=4e-3, rtol=0)


def test_repeated_looks():
    assert repeats(torch.tensor([SAME, APART, HALF])).tolist() == [[True, True], [False, False], [False, False]]
    back = [APART[0], APART[1], APART[0]]
    inner = [[0.4, 0.0, 0.0], [0.3, 0.0, 0.0], [0.28, 0.0, 0.0]]  # IoU 9/16, and 0.49 and 0.87
    assert repeats(torch.tensor([back, inner])).tolist() == [[False, True], [True, True]]
    assert paths(SAME).to_dict()["repeated"] == {"first_glimpse": 3, "share": 1, "per_glimpse": [1, 1]}
    assert paths(APART).to_dict()["repeated"]["share"] == 0
    assert paths(SAME, back).to_dict()["repeated"]["per_glimpse"] == [0.5, 1]


def test_hit_rate_counts_images_with_a_box_only():
    boxes = window_to_box(torch.tensor([APART[1], APART[1], APART[0]]), 20)
    boxes[2] = math.nan
    assert paths(APART, SAME, APART, boxes=boxes).hit_rate == [0, 0, 0.5, 0]
    assert paths(APART).hit_rate is None


def test_density_is_the_share_of_windows_over_each_place():
    density = paths([[0.5, -0.5, 0.5]], [[0.25, -0.75, 0.25]]).density(2, cells=4)
    assert density.tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [1, 0.5, 0, 0], [0.5, 0.5, 0, 0]]


# ---- from a model --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scenes():
    splits = open_digits(DigitsConfig(train_scenes=8, val_scenes=30), 20, 0)
    return lambda: create_loader(splits.val, InOrder(30), 8)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = ModelConfig(backbone="glimpse_cnn", num_glimpses=3, image_size=20, glimpse_size=8)
    return build_model(config, num_classes=10, in_channels=1)


def test_a_data_set_end_to_end(model, scenes, tmp_path):
    result = scan_dataset(model, scenes(), image_size=20)
    batches = list(scenes())
    with torch.no_grad():
        outputs = [model(model.normalization(batch.images)) for batch in batches]
    torch.testing.assert_close(result.windows, torch.cat([output.windows for output in outputs]))
    answers = torch.cat([output.logits[:, -1].argmax(-1) for output in outputs])
    labels = torch.cat([batch.labels for batch in batches])
    assert torch.equal(result.predicted, answers)
    assert torch.equal(result.correct, answers == labels)
    assert all(example.label == example.predicted for example in result.right)
    assert len(result.wrong) == 6
    images = torch.cat([batch.images for batch in batches])
    for example in result.wrong:
        place = (images == example.image).flatten(1).all(1).nonzero().item()
        assert (example.label, example.predicted) == (int(labels[place]), int(answers[place]))
        torch.testing.assert_close(example.windows, result.windows[place])

    result.save(tmp_path / "new/numbers.json")
    assert json.loads((tmp_path / "new/numbers.json").read_text()) == result.to_dict()
    result.save(tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    (text,) = {half.get_suptitle() for half in result.plot_examples().subfigs if "wrong" in half.get_suptitle()}
    assert text == f"wrong: {int((answers != labels).sum())} of 30 images"


def test_examples_name_both_classes_and_leave_no_empty_axes(model, scenes):
    result = scan_dataset(model, scenes(), image_size=20)
    names = [f"a class with a very long name, {place}" for place in range(len(result.classes))]
    few = replace(result, wrong=result.wrong[:2], classes=names)
    _, wrong = few.plot_examples().subfigs
    shown = [axes for axes in wrong.axes if axes.axison]
    assert len(shown) == 2
    for axes in shown:
        said, truth = axes.get_title().split("\n")
        assert said.startswith("a class")
        assert truth.startswith("not a class")
        assert max(len(said), len(truth)) <= 25


def test_another_policy_looks_in_the_models_place(model, scenes):
    centred = scan_dataset(model, scenes(), image_size=20, policy=CenterGlimpses((0.2, 0.5), 8)).to_dict()
    assert centred["coverage"]["mean"] == pytest.approx(0.16)
    assert centred["repeated"]["share"] == 1
    random = scan_dataset(model, scenes(), image_size=20, policy=RandomGlimpses((0.2, 0.5))).to_dict()
    assert random["repeated"]["share"] < 0.5


def test_what_cannot_be_scanned_is_refused(model):
    bad = Batch(
        *(torch.empty(0), torch.empty(0), torch.empty(0)), torch.empty(0, 4), torch.empty(0, 2), ["cannot read a.jpg"]
    )
    with pytest.raises(UserError, match=r"cannot read a.jpg; remove the file or skip unreadable images"):
        scan_dataset(model, [bad], image_size=20)
    with pytest.raises(UserError, match="no readable image"):
        scan_dataset(model, [bad], image_size=20, skip_bad=True)
    one = ModelConfig(backbone="glimpse_cnn", num_glimpses=1, image_size=20, glimpse_size=8)
    with pytest.raises(ValueError, match="only the first glimpse"):
        scan_dataset(build_model(one, num_classes=2, in_channels=1), [], image_size=20)
