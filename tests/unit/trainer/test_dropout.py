from __future__ import annotations

import pytest
import torch

from cutoff.trainer.dropout import FewBitsDropout


@pytest.mark.parametrize("probability", [0.05, 0.5, 0.9])
def test_it_zeroes_that_share_and_keeps_the_mean(probability: float) -> None:
    torch.manual_seed(0)
    dropped = FewBitsDropout(probability)(torch.ones(400, 500))
    zeroed = (dropped == 0).double().mean().item()
    assert zeroed == pytest.approx(probability, abs=5 * (probability * (1 - probability) / 200_000) ** 0.5)
    assert dropped.max().item() == pytest.approx(1 / (1 - probability), rel=1e-3)
    assert dropped.mean().item() == pytest.approx(1, abs=0.03)


def test_each_element_is_decided_on_its_own() -> None:
    torch.manual_seed(0)
    kept = (FewBitsDropout(0.5)(torch.ones(1000, 64)) != 0).double()
    correlations = torch.corrcoef(kept.T) - torch.eye(64)
    assert correlations.abs().max().item() < 0.2


def test_the_seed_decides_and_evaluation_drops_nothing() -> None:
    dropout, values = FewBitsDropout(0.3), torch.randn(7, 13)
    torch.manual_seed(1)
    first = dropout(values)
    torch.manual_seed(1)
    assert torch.equal(dropout(values), first)
    assert not torch.equal(dropout(values), first)
    assert torch.equal(dropout.eval()(values), values)


def test_gradients_pass_where_values_did() -> None:
    values = torch.randn(5, 5, requires_grad=True)
    dropped = FewBitsDropout(0.4)(values)
    dropped.sum().backward()
    torch.testing.assert_close(values.grad, torch.where(dropped != 0, 1 / (1 - 26214 / 65536), 0.0))
