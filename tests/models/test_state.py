"""The state of an episode: cut, packed and taken up again, it goes on as if nothing had happened."""

import pytest
import torch

from glimpsenet import create_model
from glimpsenet.models.config import AttentionConfig, MeanConfig, MipmapConfig, NoFusionConfig
from glimpsenet.policies.config import TokenConfig

KINDS = {
    "attention": {"fusion": AttentionConfig()},
    "mean": {"fusion": MeanConfig()},
    "none": {"fusion": NoFusionConfig()},
    "tokens": {"policy": TokenConfig(layer=1)},
}


@pytest.fixture(params=KINDS)
def model(request):
    torch.manual_seed(0)
    settings = {"image_size": 40, "glimpse_size": 12, "sampling": MipmapConfig(), **KINDS[request.param]}
    return create_model("glimpse_cnn", num_classes=5, in_channels=1, **settings).eval()


@pytest.fixture
def images():
    return torch.rand(4, 1, 40, 40, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_selected_rows_go_on_as_a_batch_of_their_own(model, images):
    rows = torch.tensor([3, 1])
    state = model.look(model.start(images), num_glimpses=2).select(rows)
    assert state.glimpse == 3
    torch.testing.assert_close(model.output(model.look(state)).logits, model(images[rows]).logits)


@torch.no_grad()
def test_a_packed_state_goes_on_where_it_was(model, images):
    before = model.look(model.start(images), num_glimpses=2)
    after = type(before).unpack(before.prepared, before.pack())
    expected = model(images)
    model.look(after)
    torch.testing.assert_close(torch.stack(after.windows, 1), expected.windows)
    torch.testing.assert_close(torch.stack(after.logits, 1), expected.logits[:, 2:])
    assert after.pack().keys() == before.pack().keys()


@torch.no_grad()
def test_what_was_known_before_a_glimpse_chooses_it_again(model, images):
    state = model.look(model.start(images))
    for glimpse in (2, 3, 4):
        earlier = state.before(glimpse)
        assert earlier.glimpse == glimpse
        torch.testing.assert_close(model.policy(earlier), state.windows[glimpse - 1])
        model.take_glimpse(earlier)
        torch.testing.assert_close(earlier.logits[-1], state.logits[glimpse - 1])


@torch.no_grad()
def test_the_loop_computes_nothing_that_was_seen_and_ends_when_told(model, images):
    seen = dict(enumerate(model.look(model.start(images)).features, 1))
    model.backbone.forward = None
    left = model.look(model.start(images), seen=seen, after=lambda state: state if state.glimpse < 4 else None)
    assert left.glimpse == 4
