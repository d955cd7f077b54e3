"""Flat batches: the same loss and gradients as one sequence at a time, for every attention there is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM, Gemma2Config, MistralConfig, PreTrainedModel

from cutoff.datasets import Encoded
from cutoff.trainer import attention
from cutoff.trainer.batches import FlatBatch, Role, RoleSequence, flatten, micro_batches, tokens_in
from cutoff.trainer.platforms import platform_of


def sequence(length: int, answer_start: int, seed: int = 0) -> RoleSequence:
    ids = torch.randint(0, 50, (length,), generator=torch.Generator().manual_seed(seed)).tolist()
    return RoleSequence(Encoded(ids, answer_start, "retain"), Role.RETAIN)


@st.composite
def sequences(draw: st.DrawFn) -> list[RoleSequence]:
    lengths = draw(st.lists(st.integers(2, 20), min_size=1, max_size=8))
    return [sequence(length, draw(st.integers(1, length - 1)), seed) for seed, length in enumerate(lengths)]


@given(sequences())
def test_a_flat_batch_holds_every_token_and_every_answer_token(rows: list[RoleSequence]) -> None:
    batch = flatten(rows)
    assert batch.ids[0].tolist() == [token for row in rows for token in row.encoded.ids]
    assert batch.positions[0].tolist() == [place for row in rows for place in range(row.length)]
    answers = [token for row in rows for token in row.encoded.ids[row.encoded.answer_start :]]
    assert batch.targets.tolist() == answers
    assert batch.ids[0][batch.predicting + 1].tolist() == answers
    assert batch.answer_lengths().tolist() == [row.answer_length for row in rows]
    laid_out = batch.ids[0][batch.padded]
    assert laid_out.flatten()[batch.unpadded].tolist() == batch.ids[0].tolist()
    assert [row[: source.length].tolist() for row, source in zip(laid_out, rows, strict=True)] == [
        source.encoded.ids for source in rows
    ]


@given(sequences(), st.integers(1, 60))
def test_micro_batches_lose_nothing_and_keep_their_limit(rows: list[RoleSequence], limit: int) -> None:
    cut = list(micro_batches([(row,) for row in rows], limit))
    assert sorted(id(row) for batch in cut for (row,) in batch) == sorted(map(id, rows))
    assert all(sum(map(tokens_in, batch)) <= limit or len(batch) == 1 for batch in cut)


def test_the_sequences_of_an_example_are_not_parted() -> None:
    pairs = [(sequence(6, 3), sequence(7, 3)) for _ in range(3)]
    assert list(micro_batches(pairs, 14)) == [[pair] for pair in pairs]


SHAPE = {
    "vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
CONFIGS = {
    "mistral": MistralConfig(**SHAPE, sliding_window=None),
    "a sliding window": MistralConfig(**SHAPE, sliding_window=5),
    "gemma 2": Gemma2Config(**SHAPE, sliding_window=6, attn_logit_softcapping=5.0, final_logit_softcapping=3.0),
}


def model_of(name: str, implementation: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(CONFIGS[name], attn_implementation=implementation)
    return model.double()


def gradients(model: PreTrainedModel) -> torch.Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])


def summed_loss(model: PreTrainedModel, batch: FlatBatch, implementation: str) -> torch.Tensor:
    logits = model(
        input_ids=batch.ids, position_ids=batch.positions, logits_to_keep=batch.predicting, use_cache=False,
        **attention.arguments(implementation, batch),
    ).logits[0]  # fmt: skip
    return torch.nn.functional.cross_entropy(logits, batch.targets, reduction="sum")


@pytest.mark.parametrize("implementation", [attention.FUSED, attention.EXPLICIT])
@pytest.mark.parametrize("name", CONFIGS)
def test_loss_and_gradients_equal_those_of_one_sequence_at_a_time(name: str, implementation: str) -> None:
    rows = [sequence(length, start, length) for length, start in ((9, 4), (3, 1), (17, 12), (2, 1), (9, 8))]

    plain = model_of(name, "eager")
    expected = 0.0
    for row in rows:
        ids = torch.tensor([row.encoded.ids])
        logits = plain(input_ids=ids, use_cache=False).logits[0, row.encoded.answer_start - 1 : -1]
        loss = torch.nn.functional.cross_entropy(logits, ids[0, row.encoded.answer_start :], reduction="sum")
        loss.backward()
        expected += loss.item()

    flat = model_of(name, implementation)
    loss = summed_loss(flat, flatten(rows), implementation)
    loss.backward()
    # transformers takes norms, rotations and softmax in float32, whatever the model's type
    assert loss.item() == pytest.approx(expected, rel=1e-7)
    torch.testing.assert_close(gradients(flat), gradients(plain), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("model_type", sorted(attention.FAMILIES))
def test_every_family_that_is_laid_out_flat_keeps_its_sequences_apart(model_type: str) -> None:
    def model(implementation: str) -> PreTrainedModel:
        torch.manual_seed(0)
        config = AutoConfig.for_model(model_type, **SHAPE)
        made: PreTrainedModel = AutoModelForCausalLM.from_config(config, attn_implementation=implementation)
        return made.eval()

    plain, flat = model("eager"), model(attention.FUSED)
    rows = [sequence(length, start, length) for length, start in ((9, 4), (3, 1), (17, 12), (30, 20))]
    with torch.no_grad():
        expected = sum(_alone(plain, row) for row in rows)
        assert summed_loss(flat, flatten(rows), attention.FUSED).item() == pytest.approx(expected, rel=1e-5)


def _alone(model: PreTrainedModel, row: RoleSequence) -> float:
    ids = torch.tensor([row.encoded.ids])
    logits = model(input_ids=ids, use_cache=False).logits[0, row.encoded.answer_start - 1 : -1]
    return torch.nn.functional.cross_entropy(logits, ids[0, row.encoded.answer_start :], reduction="sum").item()


def test_a_sequence_does_not_see_its_neighbours() -> None:
    """The test above would also pass if nothing were learnt from other positions at all."""
    model = model_of("mistral", attention.FUSED)
    first, second, other = sequence(9, 4, 1), sequence(7, 3, 2), sequence(7, 3, 3)
    with torch.no_grad():
        alone = summed_loss(model, flatten([first]), attention.FUSED)
        with_second = summed_loss(model, flatten([second, first]), attention.FUSED)
        of_second = summed_loss(model, flatten([second]), attention.FUSED)
        changed = summed_loss(model, flatten([other]), attention.FUSED)
    assert (with_second - of_second).item() == pytest.approx(alone.item(), abs=1e-9)
    assert changed.item() != pytest.approx(of_second.item(), abs=1e-3)


def test_the_attention_is_chosen_by_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, cpu, unsafe = platform_of("cuda", capability=(9, 0)), platform_of("cpu"), platform_of("rocm", "gfx000")
    old = platform_of("cuda", capability=(7, 5))
    monkeypatch.setattr(attention, "is_flash_attn_2_available", lambda: False)
    assert attention.implementation("auto", gpu, "llama") == attention.FUSED
    monkeypatch.setattr(attention, "is_flash_attn_2_available", lambda: True)
    assert attention.implementation("auto", gpu, "llama") == attention.FLASH
    assert attention.implementation("auto", old, "llama") == attention.FUSED, "its kernels need 8.0"
    assert attention.implementation("auto", cpu, "llama") == attention.FUSED
    assert attention.implementation("sdpa", gpu, "llama") == attention.FUSED
    assert attention.implementation("eager", gpu, "llama") == attention.EXPLICIT
    assert attention.implementation("auto", unsafe, "llama") == attention.EXPLICIT
    assert attention.implementation("sdpa", unsafe, "llama") == attention.FUSED, "who asks for it gets it"
    assert attention.implementation("sdpa", gpu, "mamba") is None


def test_flash_attention_is_told_where_sequences_begin(tmp_path: Path) -> None:
    told = attention.arguments(attention.FLASH, flatten([sequence(4, 2), sequence(6, 2)]))
    assert told["cu_seq_lens_q"].tolist() == [0, 4, 10]
    assert told["cu_seq_lens_q"].dtype == torch.int32
    assert told["max_length_k"] == 6
