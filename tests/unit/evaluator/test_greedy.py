from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
)

from cutoff.evaluator import greedy
from cutoff.evaluator.greedy import can_decode, decode

SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.6,
    "max_position_embeddings": 256,
}
STOPS = [2, 7, 11, 23, 42, 77]
"""Many, so that rows of a model that was never taught to stop end at different lengths."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def llama() -> PreTrainedModel:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES)).eval()


def mistral() -> PreTrainedModel:
    """Its layers see no further than eight tokens back, and keep no more."""
    torch.manual_seed(0)
    return MistralForCausalLM(MistralConfig(**SIZES, sliding_window=8)).eval()


def prompts(count: int) -> list[list[int]]:
    drawn = torch.Generator().manual_seed(3)
    lengths = torch.randint(1, 20, (count,), generator=drawn).tolist()
    return [torch.randint(24, 96, (length,), generator=drawn).tolist() for length in lengths]


def alone(model: Any, prompt: list[int], max_tokens: int) -> list[int]:
    """transformers' own loop, for one prompt."""
    ids = torch.tensor([prompt])
    settings = {"do_sample": False, "eos_token_id": STOPS, "pad_token_id": 0, "max_new_tokens": max_tokens}
    written: list[int] = model.generate(ids, attention_mask=torch.ones_like(ids), **settings)[0, len(prompt) :].tolist()
    return written


@pytest.mark.parametrize("make", [llama, mistral])
def test_a_batch_writes_what_each_prompt_alone_would(make: Any) -> None:
    model, asked = make(), prompts(40)
    assert can_decode(model)
    rows = {done.row: done for done in decode(model, asked, 24, STOPS, 0)}
    assert sorted(rows) == list(range(40))
    lengths = set()
    for row, done in rows.items():
        expected = alone(model, asked[row], 24)
        assert done.ids == [token for token in expected if token not in STOPS]
        assert done.cut == (expected[-1] not in STOPS)
        lengths.add(len(expected))
    assert len(lengths) > 5, "they ended at different times"


def test_rows_leave_the_batch_when_they_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = llama()
    sizes = []
    honest = model.forward

    def counting(*arguments: Any, **named: Any) -> Any:
        sizes.append(len(named["input_ids"]))
        return honest(*arguments, **named)

    monkeypatch.setattr(model, "forward", counting)
    found = list(decode(model, prompts(40), 24, STOPS, 0))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] <= 10
    assert len(sizes) == max(len(done.ids) + (not done.cut) for done in found), "it stops with the last row"


def test_a_near_tie_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = llama()
    with torch.no_grad():  # two tokens that are always equally likely
        model.lm_head.weight[50] = model.lm_head.weight[60]
    found = list(decode(model, prompts(40), 24, STOPS, 0))
    tied = {done.row for done in found if {50, 60} & set(done.ids)}
    assert tied
    assert tied <= {done.row for done in found if done.doubtful}
    assert not any(60 in done.ids for done in found), "the first of equals, as torch.argmax and generate() choose"
    monkeypatch.setattr(greedy, "_NEAR", 0.0)
    assert not any(done.doubtful for done in decode(model, prompts(40), 24, STOPS, 0))


def test_a_model_with_another_memory_or_other_positions_is_left_to_transformers() -> None:
    assert not can_decode(MambaForCausalLM(MambaConfig(vocab_size=96, hidden_size=32, num_hidden_layers=1)))
    assert not can_decode(BloomForCausalLM(BloomConfig(vocab_size=96, hidden_size=32, n_layer=1, n_head=2)))


def test_an_adapter_beside_its_base_is_decoded_here() -> None:
    from peft import LoraConfig, get_peft_model

    adapted: Any = get_peft_model(llama(), LoraConfig(r=2, target_modules="all-linear"))
    assert can_decode(adapted)
