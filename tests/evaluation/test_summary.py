"""A model at a glance: against what the parts really give, and against the costs counted elsewhere."""

import pytest
import torch

from glimpsenet import create_model, summary
from glimpsenet.cli import main
from glimpsenet.demo.exhibit import SHIPPED
from glimpsenet.evaluation.efficiency import measure_cost
from glimpsenet.policies.config import TokenConfig


@pytest.fixture(scope="module")
def model():
    return create_model(
        "glimpse_cnn",
        num_classes=7,
        in_channels=1,
        image_size=40,
        glimpse_size=12,
        num_glimpses=3,
        policy=TokenConfig(),
        batch_norm="separate",
    )


def test_the_parts_add_up(model):
    found = summary(model.train(), 40)
    cost = measure_cost(model, 40, 1)
    assert found.cost == cost
    assert sum(part.parameters for part in found.parts) == cost["parameters"]
    assert sum(part.flops for part in found.parts) == cost["flops"][-1]
    assert model.training


def test_shapes_are_those_of_a_pass(model):
    shapes = {part.name: part.shape for part in summary(model, 40).parts}
    images = torch.rand(2, 1, 40, 40)
    with torch.no_grad():
        output = model.eval()(images)
    assert shapes["generator"] == model.crops(images, output.windows).shape[2:]
    assert shapes["policy"] == output.windows.shape[2:]
    assert shapes["backbone"] == output.features.shape[2:]
    assert shapes["fusion"] == output.state.fused[-1].shape[1:]
    assert shapes["classifier"] == output.logits.shape[2:]
    assert shapes["auxiliary_classifier"] == output.auxiliary_logits.shape[2:]


def test_it_reads_as_two_tables_and_a_model_as_one_line(model):
    text = str(summary(model, 40))
    assert f"{sum(p.numel() for p in model.parameters()):,}" in text
    assert "of one pass over 40 x 40 px" in text
    assert all(line == line.rstrip() for line in text.splitlines())
    expected = "GlimpseNet(GlimpseCNN: 3 glimpses of 12 px, BilinearGlimpses, TokenPolicy, 7 classes, "
    assert repr(model).startswith(expected)
    assert "\n" not in repr(model)


def test_backbones_without_a_full_pass_have_no_share():
    model = create_model("vit_tiny_patch16_224", num_classes=2, image_size=64, glimpse_size=32, num_glimpses=1)
    assert "one pass" not in str(summary(model, 64))
    assert "vit_tiny_patch16_224: 1 glimpse of 32 px" in repr(model)


def test_the_command(capsys):
    main(["summary", str(SHIPPED)])
    assert "TokenPolicy" in capsys.readouterr().out
