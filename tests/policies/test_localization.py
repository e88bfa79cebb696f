"""The spatiotemporal localization network by hand, and freezing of the backbone."""

import pytest
import torch

from glimpsenet import create_model, geometry
from glimpsenet.errors import UserError
from glimpsenet.models.backbone import Features
from glimpsenet.models.clues import sinusoidal_encoding
from glimpsenet.models.state import GlimpseState
from glimpsenet.policies.config import SpatiotemporalConfig
from glimpsenet.policies.localization import SpatiotemporalLocalization


def test_cells_of_the_whole_image_and_of_a_window():
    whole, window = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.5, 0.5, -0.5])
    cells = geometry.cell_centres(torch.stack([whole, window]), rows=1, columns=2)
    assert cells[0, 0].tolist() == [[-0.5, 0.0], [0.5, 0.0]]
    assert cells[1, 0].tolist() == [[0.25, -0.5], [0.75, -0.5]]


def test_spatiotemporal_localization_by_hand():
    """Tokens one by one in Python, attention by torch over all of them."""
    torch.manual_seed(0)
    policy = SpatiotemporalLocalization(8, image_size=41, scale_range=(0.2, 0.5))
    torch.nn.init.normal_(policy.attention.in_proj_bias)
    state = GlimpseState([torch.zeros(1, 1, 41, 41)])
    windows = [[1.0, 0.0, 0.0], [0.25, -0.5, 0.4]]
    tokens = []
    for window in windows:
        feature_map = torch.randn(1, 8, 3, 2)  # three rows, two columns
        state.append(torch.tensor([window]), Features(torch.zeros(1, 8), [feature_map]), torch.zeros(1, 8))
        s, tx, ty = window
        for row in range(3):
            for column in range(2):
                x, y = tx + s * (2 * column + 1 - 2) / 2, ty + s * (2 * row + 1 - 3) / 3
                place = torch.tensor([(x + 1) * 20, (y + 1) * 20])  # pixels 0..40
                tokens.append(feature_map[0, :, row, column] + sinusoidal_encoding(place, 8))
    sequence = torch.stack(tokens)[None]
    mean = torch.relu(policy.norm(policy.attention(sequence, sequence, sequence)[0])).mean(1)
    z = torch.sigmoid(policy.fc(mean))
    s = 0.2 + 0.3 * z[:, :1]
    torch.testing.assert_close(policy(state), torch.cat([s, (2 * z[:, 1:] - 1) * (1 - s)], 1))


def test_it_starts_unsaturated():
    """Else its gradient vanishes, and it looks into a corner for good."""
    torch.manual_seed(0)
    model = create_model("glimpse_cnn", num_classes=3, image_size=80, glimpse_size=11, policy=SpatiotemporalConfig())
    with torch.no_grad():
        windows = model.eval()(torch.rand(8, 3, 80, 80)).windows[:, 1:]
    position = windows[..., 1:] / (1 - windows[..., :1])
    assert position.abs().mean() < 0.9


def test_its_gradients_are_rescaled_and_reach_the_feature_maps():
    gradients = []
    for factor in (1.0, 0.02):
        torch.manual_seed(0)
        policy = SpatiotemporalLocalization(8, 41, (0.2, 0.5), factor)
        feature_map = torch.randn(2, 8, 2, 2, requires_grad=True)
        state = GlimpseState([torch.zeros(2, 1, 41, 41)])
        state.append(torch.tensor([[1.0, 0.0, 0.0]] * 2), Features(torch.zeros(2, 8), [feature_map]), torch.zeros(2, 8))
        policy(state).square().sum().backward()
        gradients.append((feature_map.grad, policy.attention.in_proj_weight.grad, policy.fc.weight.grad))
    for full, rescaled in zip(*gradients, strict=True):
        assert full.abs().max() > 0
        torch.testing.assert_close(rescaled, 0.02 * full)


@pytest.mark.parametrize(("layer", "channels"), [(-1, 512), (-2, 256)])
def test_layers_three_and_four_of_resnet(layer, channels):
    model = create_model("resnet18", num_classes=3, policy=SpatiotemporalConfig(layer=layer))
    assert model.policy.attention.embed_dim == channels
    with torch.no_grad():
        size = 96 if layer == -1 else 32
        maps = model.backbone.eval()(torch.rand(1, 3, size, size)).maps[0]
    assert maps.shape == ((1, 512, 3, 3) if layer == -1 else (1, 256, 2, 2))  # the report's 9 and 4 tokens


def test_a_layer_the_backbone_lacks_is_refused():
    with pytest.raises(UserError, match=r"backbone 'glimpse_cnn': no feature map -4; the backbone has 3: -3"):
        create_model("glimpse_cnn", num_classes=3, policy=SpatiotemporalConfig(layer=-4))


def test_a_width_not_divisible_by_four_is_refused():
    with pytest.raises(ValueError, match="divisible by 4; the backbone has 6"):
        SpatiotemporalLocalization(6, 80, (0.2, 0.5))


@pytest.mark.parametrize("batch_norm", ["shared", "separate"])
def test_frozen_backbones_keep_weights_and_statistics_but_in_the_last_stage(batch_norm):
    torch.manual_seed(0)
    model = create_model(
        "resnet18", num_classes=3, freeze_backbone=True, batch_norm=batch_norm, glimpse_size=32
    ).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    model(torch.randn(4, 3, 224, 224)).logits.square().sum().backward()
    optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    inside = {name for name in changed if name.startswith("backbone.")}
    assert inside
    assert all(".layer4." in name for name in inside), inside
    assert any(name.endswith("running_mean") for name in inside)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trainable / sum(p.numel() for p in model.parameters()) == pytest.approx(0.77, abs=0.01)
