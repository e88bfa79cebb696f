"""The incremental fusion against torch's own attention over the full sequence."""

import pytest
import torch

from glimpsenet.models.fusion import AttentionFusion, MeanFusion


@pytest.mark.parametrize(("width", "heads"), [(515, 1), (64, 4), (12, 3)])
@pytest.mark.parametrize("training", [True, False])
def test_one_token_at_a_time_equals_full_self_attention(width, heads, training):
    torch.manual_seed(0)
    fusion = AttentionFusion(width, heads).train(training)
    torch.nn.init.normal_(fusion.attention.in_proj_bias)  # zero biases would hide a mistake
    tokens = torch.randn(3, 5, width)
    memory = None
    for glimpse in range(5):
        fused, memory = fusion(tokens[:, glimpse], memory)
        seen = tokens[:, : glimpse + 1]
        full = torch.relu(fusion.norm(fusion.attention(seen, seen, seen, need_weights=False)[0]))
        torch.testing.assert_close(fused, full[:, -1], atol=1e-4, rtol=0)
    assert memory is not None
    assert memory[0].shape == (3, heads, 5, width // heads)


def test_gradients_equal_those_of_full_self_attention():
    torch.manual_seed(0)
    fusion = AttentionFusion(8, 2)
    tokens = torch.randn(2, 4, 8)
    one, other = tokens.clone().requires_grad_(), tokens.clone().requires_grad_()
    memory = None
    for glimpse in range(4):
        fused, memory = fusion(one[:, glimpse], memory)
    fused.square().sum().backward()
    own = {name: p.grad.clone() for name, p in fusion.named_parameters()}
    fusion.zero_grad()
    torch.relu(fusion.norm(fusion.attention(other, other, other)[0]))[:, -1].square().sum().backward()
    torch.testing.assert_close(one.grad, other.grad, atol=1e-5, rtol=1e-4)
    for name, p in fusion.named_parameters():
        torch.testing.assert_close(own[name], p.grad, atol=1e-5, rtol=1e-4)


def test_the_mean_of_all_tokens_so_far():
    tokens, memory = torch.randn(3, 5, 8), None
    for glimpse in range(5):
        fused, memory = MeanFusion()(tokens[:, glimpse], memory)
        torch.testing.assert_close(fused, tokens[:, : glimpse + 1].mean(1))


def test_initialisation_is_kaiming_normal_with_zero_biases():
    torch.manual_seed(0)
    fusion = AttentionFusion(256)
    expected = (2 / 256) ** 0.5
    for weight in (fusion.attention.in_proj_weight, fusion.attention.out_proj.weight):
        assert weight.std().item() == pytest.approx(expected, rel=0.02)
    assert not fusion.attention.in_proj_bias.any()
    assert not fusion.attention.out_proj.bias.any()
    assert fusion.norm.weight.eq(1).all()


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="4 heads do not divide the fusion's width 515"):
        AttentionFusion(515, 4)
