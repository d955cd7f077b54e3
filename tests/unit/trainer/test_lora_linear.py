from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from cutoff.trainer.lora_linear import LoraLinear, dropped_places, use_lora_linear


class Model(nn.Module):
    """Two linear layers; the first has a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 10), nn.Linear(10, 4, bias=False)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(values).tanh())  # type: ignore[no-any-return]


def adapted(**options: Any) -> Any:
    torch.manual_seed(0)
    config = LoraConfig(**{"r": 3, "lora_alpha": 7, "target_modules": ["first", "second"], **options})
    model = get_peft_model(Model().double(), config, autocast_adapter_dtype=False)  # type: ignore[arg-type]
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter)
    return model.train()


def changed(model: Any) -> list[str]:
    return [name for name, module in model.named_modules() if "forward" in vars(module)]


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"alpha_pattern": {"first": 1}, "r": 1}])
def test_outputs_and_gradients_are_those_of_peft(options: dict[str, Any]) -> None:
    theirs = adapted(**options)
    ours = copy.deepcopy(theirs)
    use_lora_linear(ours)
    assert len(changed(ours)) == 2
    inputs = [torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    inputs[1].data.copy_(inputs[0].data)
    weights = torch.randn(2, 5, 4, dtype=torch.float64)
    outputs = [model(values) for model, values in zip((theirs, ours), inputs, strict=True)]
    for output in outputs:
        (output * weights).sum().backward()
    torch.testing.assert_close(outputs[1], outputs[0])
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad)
    pairs = list(zip(ours.parameters(), theirs.parameters(), strict=True))
    assert sum(one.requires_grad for one, _ in pairs) == 4
    for one, other in pairs:
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("bias", [True, False])
def test_gradients_are_those_of_the_function_with_dropout(bias: bool) -> None:
    torch.manual_seed(0)
    sizes = ((2, 7, 6), (4, 6), (4,), (3, 6), (4, 3))
    inputs, weight, offset, down, up = (torch.randn(size, dtype=torch.float64) for size in sizes)
    for each in (inputs, down, up):
        each.requires_grad_()

    def function(*learnt: torch.Tensor) -> Any:
        torch.manual_seed(1)  # the same places every time
        values, one, other = learnt
        return LoraLinear.apply(values, weight, offset if bias else None, one, other, 0.7, 0.4)  # type: ignore[no-untyped-call]

    assert torch.autograd.gradcheck(function, (inputs, down, up))


def test_dropout_zeroes_the_adapters_input_only() -> None:
    identity, nothing = torch.eye(500), torch.zeros(500, 500)
    adapter: torch.Tensor = LoraLinear.apply(torch.ones(400, 500), nothing, None, identity, identity, 1.0, 0.3)  # type: ignore[no-untyped-call]
    base: torch.Tensor = LoraLinear.apply(torch.ones(400, 500), identity, None, nothing, nothing, 1.0, 0.3)  # type: ignore[no-untyped-call]
    assert (adapter == 0).double().mean().item() == pytest.approx(0.3, abs=0.006)
    assert adapter.max().item() == pytest.approx(1 / 0.7)
    assert adapter.mean().item() == pytest.approx(1, abs=0.02)
    assert torch.equal(base, torch.ones(400, 500))


@pytest.mark.parametrize("probability", [0.05, 0.5, 0.95])
def test_each_place_is_dropped_with_its_probability_and_on_its_own(probability: float) -> None:
    torch.manual_seed(0)
    rounds, width = 3000, 40
    dropped = torch.zeros(rounds, width, dtype=torch.float64)
    for row in dropped:
        row[dropped_places(width, probability)] = 1
    spread = (probability * (1 - probability)) ** 0.5
    assert dropped.mean().item() == pytest.approx(probability, abs=5 * spread / (rounds * width) ** 0.5)
    # How many of a row are dropped varies as independent choices do, which fixed or clustered counts would not.
    assert dropped.sum(1).var().item() == pytest.approx(width * spread**2, rel=0.15)
    correlations = torch.corrcoef(dropped.T) - torch.eye(width, dtype=torch.float64)
    assert correlations.abs().max().item() < 5 / rounds**0.5


def test_the_seed_decides_and_evaluation_drops_nothing() -> None:
    model = adapted(lora_dropout=0.3)
    use_lora_linear(model)
    values = torch.randn(7, 6, dtype=torch.float64)
    torch.manual_seed(1)
    first = model(values)
    torch.manual_seed(1)
    assert torch.equal(model(values), first)
    assert not torch.equal(model(values), first)
    model.eval()
    assert torch.equal(model(values), model(values))


def test_an_adapter_that_is_switched_off_leaves_the_base() -> None:
    model = adapted(lora_dropout=0.3)
    use_lora_linear(model)
    values = torch.randn(7, 6, dtype=torch.float64)
    with model.disable_adapter():
        assert torch.equal(model(values), adapted().unload()(values))


@pytest.mark.parametrize("options", [{"use_dora": True}, {"lora_bias": True, "target_modules": ["first"]}])
def test_other_kinds_of_lora_stay_with_peft(options: dict[str, Any]) -> None:
    model = adapted(**options)
    use_lora_linear(model)
    assert not changed(model)


def test_less_is_kept_for_the_backward_pass() -> None:
    def kept(model: Any) -> int:
        sizes: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor.detach()

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            _ = model(torch.randn(1000, 6, dtype=torch.float64))
        return sum(sizes.values())

    theirs = adapted(lora_dropout=0.05)
    ours = copy.deepcopy(theirs)
    use_lora_linear(ours)
    assert kept(ours) < 0.7 * kept(theirs)
