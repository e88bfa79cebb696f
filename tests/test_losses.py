"""The paper's loss, written out."""

import math

import pytest
import torch

from glimpsenet.losses import glimpse_loss
from glimpsenet.models.glimpsenet import GlimpseOutput


def output(glimpses: int, auxiliary: bool = True) -> GlimpseOutput:
    torch.manual_seed(0)
    return GlimpseOutput(
        logits=torch.randn(3, glimpses, 5),
        windows=torch.zeros(3, glimpses, 3),
        features=torch.zeros(3, glimpses, 2),
        auxiliary_logits=torch.randn(3, glimpses - 1, 5) if auxiliary else None,
    )


def cross_entropy(logits: torch.Tensor, label: int) -> float:
    values = logits.double().tolist()
    return -math.log(math.exp(values[label]) / sum(math.exp(v) for v in values))


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_the_loss_is_the_papers(alpha):
    out, labels = output(4), torch.tensor([0, 3, 4])
    main = sum(cross_entropy(out.logits[b, t], int(labels[b])) for b in range(3) for t in range(4)) / 12
    aux = sum(cross_entropy(out.auxiliary_logits[b, t], int(labels[b])) for b in range(3) for t in range(3)) / 9
    loss = glimpse_loss(out, labels, alpha)
    assert loss.total.item() == pytest.approx((1 - alpha) * main + alpha * aux, rel=1e-5)
    assert loss.auxiliary.item() == pytest.approx(aux, rel=1e-5)
    assert loss.per_glimpse.mean().item() == pytest.approx(main, rel=1e-5)


@pytest.mark.parametrize("out", [output(1), output(4, auxiliary=False)])
def test_alpha_counts_as_zero_without_windows_or_auxiliary_classifier(out):
    loss = glimpse_loss(out, torch.tensor([0, 1, 2]), 0.6)
    assert loss.total.item() == pytest.approx(loss.per_glimpse.mean().item())
    assert loss.auxiliary == 0
