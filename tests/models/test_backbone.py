"""The backbone: timm's interface, normalisation, weights, and batch normalisation shared or separate."""

from functools import partial

import pytest
import safetensors.torch
import timm
import torch
from huggingface_hub import hf_hub_download

from glimpsenet.errors import UserError
from glimpsenet.models.backbone import (
    Backbone,
    Normalization,
    backbone_normalization,
    create_backbone_net,
    load_backbone_weights,
)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050", "vit_tiny_patch16_224", "glimpse_cnn"])
def test_any_timm_model_gives_pooled_features_and_maps(name):
    net = create_backbone_net(name, image_size=64)
    backbone = Backbone(net, layers=[-1]).eval()
    with torch.no_grad():
        features = backbone(torch.rand(2, 3, 64, 64))
        assert features.pooled.shape == (2, backbone.channels)
        assert len(features.maps) == 1
        assert features.maps[0].dim() == 4
        torch.testing.assert_close(
            Backbone(net).eval()(torch.zeros(1, 3, 64, 64)).pooled, net(torch.zeros(1, 3, 64, 64))
        )


def test_resnet_starts_as_torchvisions_does():
    net = create_backbone_net("resnet18")
    assert all(block.bn2.weight.eq(1).all() for block in [*net.layer1, *net.layer4])


def test_separate_norms_share_all_weights_but_the_norms():
    backbone = Backbone(create_backbone_net("glimpse_cnn", in_channels=1), separate_norms=True)
    pairs = [
        (name, one is other)
        for (name, one), (_, other) in zip(
            backbone.net.named_parameters(), backbone.first_glimpse_net.named_parameters(), strict=True
        )
    ]
    assert {name for name, same in pairs if not same} == {
        f"stages.{stage}.{layer}.{kind}" for stage in range(3) for layer in (1, 4) for kind in ("weight", "bias")
    }


@pytest.mark.parametrize(("separate", "agree"), [(True, True), (False, False)])
def test_separate_norms_make_the_first_glimpse_the_same_in_training_and_evaluation(separate, agree):
    """The trap that costs MGNet its first glimpse: one running average of two kinds of input.

    The same batches again and again, so that running averages come to be those of the batch.
    """
    torch.manual_seed(0)
    backbone = Backbone(create_backbone_net("glimpse_cnn", in_channels=1), separate_norms=separate)
    glimpse, window = 3 + torch.randn(32, 1, 8, 8), 0.1 * torch.randn(32, 1, 8, 8)
    with torch.no_grad():
        for _ in range(80):
            backbone(glimpse, first_glimpse=True)
            backbone(window)
        training = backbone.train()(glimpse, first_glimpse=True).pooled
        evaluation = backbone.eval()(glimpse, first_glimpse=True).pooled
    error = (training - evaluation).norm() / training.norm()
    assert (error < 0.05) == agree, error  # running variances divide by n - 1, at the coarsest map 31 for 32
    assert (error > 0.5) == (not agree), error


def test_normalization_is_the_backbones_own_and_takes_bytes_and_floats():
    net = create_backbone_net("resnet18")
    normalization = backbone_normalization(net, 3)
    assert normalization.mean.flatten().tolist() == pytest.approx(net.pretrained_cfg["mean"])
    assert normalization.std.flatten().tolist() == pytest.approx(net.pretrained_cfg["std"])
    assert backbone_normalization(net, 1).mean.item() == pytest.approx(sum(net.pretrained_cfg["mean"]) / 3)
    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    torch.testing.assert_close(normalization(images), normalization(images.float() / 255))
    assert Normalization([0.5], [0.25])(torch.ones(1, 1, 1, 1)).item() == 2


def test_weights_load_strictly_and_the_classifier_is_left_out(tmp_path):
    whole = timm.create_model("mobilenetv3_small_050", num_classes=7)
    for file in (tmp_path / "w.safetensors", tmp_path / "w.pth"):
        if file.suffix == ".pth":
            torch.save(whole.state_dict(), file)
        else:
            safetensors.torch.save_file(whole.state_dict(), file)
        net = create_backbone_net("mobilenetv3_small_050")
        load_backbone_weights(net, file, "mobilenetv3_small_050")
        for key, value in net.state_dict().items():
            assert torch.equal(value, whole.state_dict()[key])


def test_weights_of_another_model_are_named(tmp_path):
    file = tmp_path / "w.safetensors"
    safetensors.torch.save_file(timm.create_model("mobilenetv3_small_050").state_dict(), file)
    with pytest.raises(
        UserError, match=r"w\.safetensors does not contain the weights of 'resnet18': \d+ missing \(first:"
    ):
        load_backbone_weights(create_backbone_net("resnet18"), file, "resnet18")
    (tmp_path / "x.safetensors").write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"cannot read weights from .*x\.safetensors"):
        load_backbone_weights(create_backbone_net("resnet18"), tmp_path / "x.safetensors", "resnet18")


def test_unknown_backbones_are_refused_with_the_nearest_names():
    with pytest.raises(UserError, match=r"'tf_efficientnet_lite'; did you mean .*tf_efficientnet_lite0"):
        create_backbone_net("tf_efficientnet_lite")
    with pytest.raises(UserError, match=r"unknown backbone 'resnet19'; did you mean resnet18"):
        create_backbone_net("resnet19")


def test_weights_that_cannot_be_downloaded_are_told_in_a_whole_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("timm.models._hub.hf_hub_download", partial(hf_hub_download, cache_dir=tmp_path))
    with pytest.raises(UserError, match=r"cannot be reached; set backbone_weights to a file, or train from scratch$"):
        create_backbone_net("resnet18", pretrained=True)
