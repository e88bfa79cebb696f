"""FLOPs against MGNet's published shares and against counting by hand."""

import pytest
import torch

from glimpsenet import create_model
from glimpsenet.evaluation.efficiency import count_flops, count_plain_flops, measure_cost


def test_resnet18_at_224_and_96_costs_what_mgnet_says():
    cost = measure_cost(create_model("resnet18", num_classes=100), 224, 3)
    assert [round(100 * share) for share in cost["share_of_full_pass"]] == [18, 37, 55, 74]
    assert cost["full_pass_flops"] == pytest.approx(2 * 1.81e9, rel=0.01)  # 1.81 billion multiply-adds


def test_the_small_cnn_by_hand():
    model = create_model(
        "glimpse_cnn", num_classes=10, in_channels=1, image_size=80, glimpse_size=20, auxiliary_classifier=False
    )
    side, inputs, convolutions = 20, 1, 0
    for width, stride in ((24, 1), (48, 2), (64, 2)):
        side = side // stride
        convolutions += side**2 * 9 * (inputs * width + width * width)
        inputs = width
    fusion = 67 * 3 * 67 + 67 * 67  # query, key, value and output; torch does not count the few products in between
    assert count_flops(model, 80, 1)[0] == 2 * (convolutions + fusion + 67 * 10)


def test_measuring_changes_nothing():
    model = create_model("glimpse_cnn", num_classes=2, in_channels=1, image_size=40, glimpse_size=12).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    measure_cost(model, 40, 1)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_transformers_have_no_full_pass():
    model = create_model("vit_tiny_patch16_224", num_classes=2, image_size=64, glimpse_size=32).eval()
    assert count_plain_flops(model, 64, 3) is None
