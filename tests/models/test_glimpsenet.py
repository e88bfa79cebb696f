"""The recurrent loop, end to end on a small model."""

import pytest
import torch

import glimpsenet
from glimpsenet import create_model
from glimpsenet.errors import UserError
from glimpsenet.models.config import AttentionConfig, MipmapConfig
from glimpsenet.models.sampling import MipmapGlimpses
from glimpsenet.policies.baselines import FixedGlimpses, RandomGlimpses
from glimpsenet.policies.token import TokenPolicy


def small_model(**settings):
    defaults = {"num_classes": 10, "in_channels": 1, "image_size": 40, "glimpse_size": 12}
    torch.manual_seed(0)
    return create_model("glimpse_cnn", **{**defaults, **settings})


def test_output_shapes_and_first_glimpse():
    model = small_model()
    out = model(torch.rand(3, 1, 40, 40))
    assert out.logits.shape == (3, 4, 10)
    assert out.windows.shape == (3, 4, 3)
    assert out.features.shape == (3, 4, 64)
    assert out.auxiliary_logits.shape == (3, 3, 10)
    assert out.windows[:, 0].tolist() == [[1, 0, 0]] * 3


def test_the_loop_is_the_algorithm_of_the_paper():
    """Glimpse by glimpse by hand from the parts, attention recomputed over the full sequence each time."""
    model = small_model().eval()
    images = torch.rand(2, 1, 40, 40)
    windows, tokens = torch.tensor([[1.0, 0.0, 0.0]] * 2), []
    expected = []
    for _ in range(4):
        glimpse = model.generator(model.generator.prepare(images), windows)
        tokens.append(torch.cat([model.backbone(glimpse).pooled, windows], 1))
        sequence = torch.stack(tokens, 1)
        attended = model.fusion.attention(sequence, sequence, sequence)[0][:, -1]
        fused = torch.relu(model.fusion.norm(attended))
        expected.append(model.classifier(fused))
        z = torch.sigmoid(model.policy.fc(fused))
        s = 0.2 + 0.3 * z[:, :1]
        windows = torch.cat([s, (2 * z[:, 1:] - 1) * (1 - s)], 1)
    torch.testing.assert_close(model(images).logits, torch.stack(expected, 1), atol=1e-4, rtol=0)


def test_a_model_like_another_has_its_settings_but_for_those_named():
    like = glimpsenet.recipe("digits").model
    model = create_model("glimpse_cnn", num_classes=3, like=like, num_glimpses=2)
    assert isinstance(model.policy, TokenPolicy)
    assert isinstance(model.generator, MipmapGlimpses)
    assert (model.generator.glimpse_size, model.num_glimpses) == (like.glimpse_size, 2)
    with pytest.raises(UserError, match="did you mean"):
        create_model("glimpse_cnn", num_classes=3, like=like, glimpse_sise=20)


def test_glimpse_ensemble_beside_the_fusion_after_training():
    plain, voting = small_model(), small_model(glimpse_ensemble=True)
    images = torch.rand(3, 1, 40, 40)
    torch.testing.assert_close(plain(images).logits, voting(images).logits)  # in training
    seen, voted = plain.eval()(images), voting.eval()(images)
    fused, alone = seen.logits.softmax(-1), seen.auxiliary_logits.softmax(-1)
    torch.testing.assert_close(voted.logits[:, 0], seen.logits[:, 0])
    third = (fused[:, 2] * alone[:, 0] * alone[:, 1]) ** (1 / 3)  # the geometric mean
    torch.testing.assert_close(voted.logits[:, 2].exp(), third)
    with pytest.raises(UserError, match="glimpse_ensemble needs the auxiliary classifier"):
        small_model(glimpse_ensemble=True, auxiliary_classifier=False)


def test_fewer_glimpses_are_a_prefix():
    model = small_model(sampling=MipmapConfig(), batch_norm="separate").eval()
    images = torch.rand(2, 1, 40, 40)
    whole = model(images)
    for glimpses in (1, 2, 3):
        part = model(images, num_glimpses=glimpses)
        torch.testing.assert_close(part.logits, whole.logits[:, :glimpses])
        assert part.auxiliary_logits.shape == (2, glimpses - 1, 10)


def test_answers_do_not_depend_on_the_rest_of_the_batch():
    model = small_model(sampling=MipmapConfig()).eval()
    images = torch.rand(5, 1, 40, 40)
    torch.testing.assert_close(model(images).logits[2:3], model(images[2:3]).logits, atol=1e-5, rtol=1e-4)


def test_a_policy_overrides_the_models_own_and_later_glimpses_react():
    model = small_model().eval()
    images = torch.rand(2, 1, 40, 40)
    out = model(images)
    injected = model(images, policy=FixedGlimpses({2: (0.3, -0.5, 0.1)}, otherwise=model.policy))
    torch.testing.assert_close(injected.windows[:, 1], torch.tensor([[0.3, -0.5, 0.1]] * 2))
    torch.testing.assert_close(injected.logits[:, 0], out.logits[:, 0])
    assert not torch.allclose(injected.windows[:, 2], out.windows[:, 2])
    random = model(images, policy=RandomGlimpses((0.2, 0.5)))
    assert not torch.allclose(random.windows[:, 1], out.windows[:, 1])


def test_the_loss_reaches_the_localization_network_through_the_window():
    model = small_model()
    out = model(torch.rand(4, 1, 40, 40))
    out.logits[:, -1].square().sum().backward()
    assert model.policy.fc.weight.grad.abs().max() > 0


def test_glimpses_are_what_the_model_saw():
    model = small_model(sampling=MipmapConfig()).eval()
    images = torch.rand(2, 1, 40, 40)
    out = model(images)
    seen = model.crops(images, out.windows)
    assert seen.shape == (2, 4, 1, 12, 12)
    torch.testing.assert_close(model.backbone(seen[:, 2]).pooled, out.features[:, 2])


def test_without_auxiliary_classifier_there_are_no_auxiliary_logits():
    assert small_model(auxiliary_classifier=False)(torch.rand(2, 1, 40, 40)).auxiliary_logits is None


@pytest.mark.parametrize("clue", ["affine", "positional", "none"])
@pytest.mark.parametrize("sampling", ["bilinear", "mipmap"])
def test_every_combination_trains_a_batch_of_one(clue, sampling):
    model = small_model(clue=clue, sampling=sampling, batch_norm="separate")
    model(torch.rand(1, 1, 40, 40)).logits.sum().backward()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(1, 1, 40, 30), r"must be square.*\[1, 1, 40, 30\]"),
        (torch.rand(1, 3, 40, 40), r"must be \[batch, 1, size, size\].*got \[1, 3, 40, 40\]"),
        (torch.rand(40, 40), r"must be \[batch, 1, size, size\].*got \[40, 40\]"),
        (torch.rand(1, 1, 40, 40).double(), r"of type torch.float64 do not fit the model's torch.float32"),
        (torch.rand(1, 1, 8, 8), r"\[1, 1, 8, 8\] are smaller than a glimpse, 12 x 12"),
    ],
)
def test_images_that_do_not_fit_are_refused_with_their_shape(images, message):
    with pytest.raises(ValueError, match=message):
        small_model()(images)


def test_settings_that_do_not_exist_are_refused_with_the_nearest():
    with pytest.raises(UserError, match="no setting 'glimpse_sise'; did you mean 'glimpse_size'"):
        small_model(glimpse_sise=3)
    with pytest.raises(UserError, match="4 heads do not divide the fusion's width 67"):
        small_model(fusion=AttentionConfig(num_heads=4))
    with pytest.raises(UserError, match=r"policy 'tokens' has one: policy=TokenConfig\(scales=\.\.\.\)"):
        small_model(scales=(0.3,))
    with pytest.raises(UserError, match="no policy 'token'; did you mean 'tokens'"):
        small_model(policy="token")
    with pytest.raises(UserError, match="image_size 40 is smaller than glimpse_size 41"):
        small_model(glimpse_size=41)


def test_one_seed_makes_the_same_model_twice():
    one, other = small_model(batch_norm="separate"), small_model(batch_norm="separate")
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
