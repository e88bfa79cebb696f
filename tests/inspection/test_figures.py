"""Where labels of windows stand."""

import itertools

import pytest
import torch
from matplotlib.figure import Figure

from glimpsenet.inspection.figures import draw_window

SIZE = 100


def label_places(*windows: tuple[float, float, float]) -> list[tuple[float, float]]:
    axes = Figure().add_subplot()
    for glimpse, window in enumerate(windows, 2):
        draw_window(axes, torch.tensor(window), SIZE, glimpse)
    return [text.get_position() for text in axes.texts]


@pytest.mark.parametrize(
    ("window", "low", "high"),
    [
        ((0.2, 0.0, 0.0), 30, 40),  # above: the window reaches from 40 to 60
        ((0.2, 0.0, -0.8), 20, 30),  # below: from 0 to 20
        ((1.0, 0.0, 0.0), 0, 100),  # inside
    ],
)
def test_a_label_stands_outside_its_window_where_there_is_room(window, low, high):
    ((_, y),) = label_places(window)
    assert low < y < high


def test_labels_of_windows_on_one_place_stand_side_by_side():
    places = label_places(*[(0.2, 0.0, 0.0)] * 4)
    lefts = [x for x, _ in places]
    assert all(later - earlier >= 0.05 * SIZE for earlier, later in itertools.pairwise(lefts))
    assert len({y for _, y in places}) == 1
