"""The convention block of geometry.py, line by line, and properties of the conversions."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torchvision.ops import box_iou

from glimpsenet import geometry

pixels = st.integers(0, 99)
sizes = st.integers(1, 512)


def test_convention_edges_of_the_image_are_minus_one_and_one():
    edges = geometry.normalized_to_pixel(torch.tensor([-1.0, 0.0, 1.0]), 80)
    assert edges.tolist() == [0, 40, 80]


def test_convention_pixel_i_spans_its_two_edges():
    i, n = 3, 8
    assert geometry.pixel_to_normalized(torch.tensor([float(i), i + 1.0]), n).tolist() == [
        2 * i / n - 1,
        2 * (i + 1) / n - 1,
    ]


def test_convention_x_is_to_the_right_and_y_down():
    box = geometry.window_to_box(torch.tensor([0.25, 0.5, -0.5]), 80)
    assert box.tolist() == [50, 10, 70, 30]  # right of the middle, above it


def test_convention_first_look_is_the_whole_image():
    windows = geometry.first_window(torch.zeros(2, 1, 80, 80))
    assert windows.tolist() == [[1, 0, 0]] * 2
    assert geometry.window_to_box(windows, 80).tolist() == [[0, 0, 80, 80]] * 2


def test_convention_boxes_are_half_open():
    whole = torch.tensor([0.0, 0.0, 80.0, 80.0])  # pixels 0..79
    assert geometry.box_to_window(whole, 80).tolist() == [1, 0, 0]
    one_pixel = torch.tensor([79.0, 79.0, 80.0, 80.0])
    assert geometry.window_to_box(geometry.box_to_window(one_pixel, 80), 80).tolist() == [79, 79, 80, 80]


def test_convention_a_window_lies_inside_when_its_centre_is_within_one_minus_s():
    windows = torch.tensor([[0.3, 0.7, -0.7], [0.3, 0.71, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    assert geometry.lies_inside(windows).tolist() == [True, False, False, True]


@given(x=pixels, y=pixels, side=sizes, size=sizes)
def test_square_boxes_survive_the_round_trip(x, y, side, size):
    box = torch.tensor([x, y, x + side, y + side], dtype=torch.float64)
    there = geometry.box_to_window(box, size)
    torch.testing.assert_close(geometry.window_to_box(there, size), box)


@given(width=sizes, height=sizes, x=pixels, y=pixels)
def test_the_window_of_a_box_covers_it_and_is_as_long(width, height, x, y):
    box = torch.tensor([x, y, x + width, y + height], dtype=torch.float64)
    windows = geometry.box_to_window(box, 100)
    assert geometry.covered_share(windows, box, 100).item() == pytest.approx(1)
    window = geometry.window_to_box(windows, 100)
    assert (window[2] - window[0]).item() == pytest.approx(max(width, height))


@given(s=st.floats(0.01, 2), tx=st.floats(-3, 3), ty=st.floats(-3, 3))
def test_windows_moved_inside_are_inside_and_those_that_were_do_not_move(s, tx, ty):
    windows = torch.tensor([s, tx, ty], dtype=torch.float64)
    moved = geometry.move_inside(windows)
    assert geometry.lies_inside(moved)
    torch.testing.assert_close(geometry.move_inside(moved), moved)
    if geometry.lies_inside(windows, tolerance=0):
        torch.testing.assert_close(moved, windows)


@given(s=st.floats(0.01, 1), tx=st.floats(-1, 1), ty=st.floats(-1, 1))
def test_matrix_maps_the_corners_of_the_glimpse_to_the_window(s, tx, ty):
    windows = torch.tensor([s, tx, ty], dtype=torch.float64)
    matrix = geometry.window_to_matrix(windows)
    corners = matrix @ torch.tensor([[-1.0, 1.0], [-1.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(
        geometry.normalized_to_pixel(corners.T.flatten(), 80), geometry.window_to_box(windows, 80)
    )
    torch.testing.assert_close(geometry.matrix_to_window(matrix), windows)


def test_a_matrix_that_is_no_window_is_refused():
    with pytest.raises(ValueError, match="rotates, shears or stretches"):
        geometry.matrix_to_window(torch.tensor([[1.0, 0.1, 0.0], [0.0, 1.0, 0.0]]))


@pytest.mark.parametrize(
    ("box", "share"),
    [
        ([20.0, 20.0, 40.0, 40.0], 1.0),
        ([10.0, 20.0, 30.0, 40.0], 0.5),
        ([10.0, 10.0, 30.0, 30.0], 0.25),
        ([50.0, 50.0, 60.0, 60.0], 0.0),
        ([0.0, 0.0, 80.0, 80.0], 400 / 6400),
    ],
)
def test_covered_share_by_hand(box, share):
    window = geometry.box_to_window(torch.tensor([20.0, 20.0, 40.0, 40.0]), 80)
    assert geometry.covered_share(window, torch.tensor(box), 80).item() == pytest.approx(share, abs=1e-6)


def test_covered_share_of_an_unknown_box_is_nan():
    assert geometry.covered_share(torch.tensor([0.5, 0.0, 0.0]), torch.full((4,), torch.nan), 80).isnan()


def test_overlap_is_torchvisions_intersection_over_union():
    windows, others = torch.rand(2, 40, 3, dtype=torch.float64) * torch.tensor([0.9, 2, 2]) + torch.tensor(
        [0.1, -1, -1]
    )
    boxes = [geometry.window_to_box(each, 2) for each in (windows, others)]
    torch.testing.assert_close(geometry.overlap(windows[:, None], others), box_iou(*boxes))
    torch.testing.assert_close(geometry.overlap(windows, windows), torch.ones(40, dtype=torch.float64))


def test_conversions_are_differentiable():
    windows = torch.tensor([[0.3, 0.2, -0.1], [0.5, -0.4, 0.3]], dtype=torch.float64, requires_grad=True)
    box = torch.tensor([[10.0, 20.0, 33.0, 41.0]], dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda a: geometry.window_to_box(a, 80), windows)
    assert gradcheck(lambda b: geometry.box_to_window(b, 80), box)
    assert gradcheck(geometry.window_to_matrix, windows)
    assert gradcheck(geometry.move_inside, windows)
    assert gradcheck(lambda a: geometry.covered_share(a, box.detach(), 80), windows)
