"""Scanpaths and injection against the model's own output."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from glimpsenet import create_model
from glimpsenet.geometry import window_to_box
from glimpsenet.inference import Prediction
from glimpsenet.inspection.injection import inject
from glimpsenet.inspection.scanpath import MAX_ROWS, Scanpaths, gather, scanpaths
from glimpsenet.models.config import MipmapConfig

WINDOW = (0.3, -0.5, 0.1)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    settings = {"num_glimpses": 3, "image_size": 40, "glimpse_size": 12, "sampling": MipmapConfig()}
    return create_model("glimpse_cnn", num_classes=5, in_channels=1, **settings).eval()


@pytest.fixture(scope="module")
def images():
    torch.manual_seed(1)
    return torch.randint(256, (2, 1, 40, 40), dtype=torch.uint8)


@torch.no_grad()
def test_scanpaths_are_what_the_model_did(model, images, tmp_path):
    result = scanpaths(model, images, labels=[3, 0], classes=list("abcde"))
    output = model(model.normalization(images))
    for row, path in enumerate(result.rows):
        torch.testing.assert_close(path.windows, output.windows[row])
        torch.testing.assert_close(path.probabilities, output.logits[row].softmax(-1))
        torch.testing.assert_close(path.image, images[row] / 255)
        torch.testing.assert_close(path.crops, model.crops(images[row : row + 1] / 255, path.windows[None])[0])
        assert (path.name, path.label) == (str(row + 1), "da"[row])
        assert path.top(-1)[0][0] == "abcde"[int(output.logits[row, -1].argmax())]
    result.save(tmp_path / "new/paths.json")
    (first, _) = json.loads((tmp_path / "new/paths.json").read_text())
    assert sum(first["probabilities"][2].values()) == pytest.approx(1)
    assert first["windows"][1] == pytest.approx(output.windows[0, 1].tolist())
    result.save(tmp_path / "paths.png")
    assert (tmp_path / "paths.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_says_the_answer_the_truth_and_all_steps_and_has_few_rows(model, images):
    result = scanpaths(model, images[:1].repeat(14, 1, 1, 1), labels=[3] * 14, classes=list("abcde"))
    figure = result.plot(top=2)
    assert len(figure.subfigs) == MAX_ROWS
    whole, *others = figure.subfigs[0].axes
    assert whole.get_title().startswith(f"wrong: {result.rows[0].top(-1)[0][0]}")
    assert whole.get_xlabel() == "1\ntrue class: d"
    assert [axes.get_title() for axes in others[::2]] == ["1 · first glimpse", "2", "3"]
    names = [text.get_text() for text in others[1].texts]
    assert names[::2] == [name for name, _ in result.rows[0].top(1, 2)]


def test_only_answers_known_to_be_wrong_are_marked(model, images):
    (row,) = scanpaths(model, images[:1], classes=list("abcde")).rows
    answer = row.top(-1)[0][0]
    for label, marked in ((None, False), (answer, False), ("b" if answer == "a" else "a", True)):
        title = Scanpaths([replace(row, label=label)]).plot().subfigs[0].axes[0].title
        assert title.get_text().startswith("wrong: ") == marked


def test_an_injected_window_is_looked_at_and_later_glimpses_react(model, images):
    own, changed = inject(model, images[0], {2: WINDOW}).rows
    torch.testing.assert_close(changed.windows[1], torch.tensor(WINDOW))
    torch.testing.assert_close(changed.windows[0], own.windows[0])
    assert not torch.equal(changed.windows[2], own.windows[2])
    torch.testing.assert_close(own.windows, scanpaths(model, images[:1]).rows[0].windows)
    with pytest.raises(ValueError, match="no glimpse 4: the model takes glimpses 1 to 3"):
        inject(model, images[0], {4: WINDOW})


def test_injected_windows_are_marked_and_no_others(model, images):
    whole, *others = inject(model, images[0], {2: WINDOW}).plot().subfigs[1].axes
    assert [axes.get_title() for axes in others[::2]] == ["1 · first glimpse", "2 · yours", "3"]
    assert [window.get_linestyle() == "-" for window in whole.patches] == [False, True]


@pytest.mark.parametrize(("folder", "label"), [("a", "a"), ("holidays", None)])
def test_the_true_class_is_the_folders_name_where_the_model_knows_it(folder, label):
    windows = torch.tensor([[1.0, 0.0, 0.0]])
    prediction = Prediction(
        file=Path("val") / folder / "1.png",
        classes=["a", "b"],
        image=torch.zeros(1, 20, 20),
        crops=torch.zeros(1, 1, 8, 8),
        probabilities=torch.tensor([[0.25, 0.75]]),
        windows=windows,
        boxes=window_to_box(windows, 20),
    )
    (path,) = gather([prediction]).rows
    assert (path.name, path.label, path.top(1)) == ("1.png", label, [("b", 0.75)])
