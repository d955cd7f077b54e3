from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from cutoff.hub.candidates import CANDIDATES, Candidate, candidate
from cutoff.hub.shape import ModelShape
from cutoff.spec import TrainSpec
from cutoff.trainer import estimate
from cutoff.trainer.estimate import GIB, Batch, training_memory
from cutoff.trainer.memory import counting_saved
from cutoff.trainer.model import lora_config

TINY = ModelShape("llama", 3, 128, 320, 4, 2, 32, 512, tied=True)
FULL = Batch(tokens=4 * 512, answer_tokens=4 * 512)


def qwen() -> ModelShape:
    found = candidate("Qwen/Qwen2.5-1.5B-Instruct")
    assert found is not None
    return found.shape


def saved_bytes(dropout: float) -> tuple[int, int]:
    """What autograd really keeps of a forward pass, and of how many tokens."""
    config = LlamaConfig(
        num_hidden_layers=TINY.layers,
        hidden_size=TINY.hidden,
        intermediate_size=TINY.feed_forward,
        num_attention_heads=TINY.heads,
        num_key_value_heads=TINY.kv_heads,
        vocab_size=TINY.vocabulary,
        tie_word_embeddings=True,
        use_cache=False,
    )
    model = get_peft_model(LlamaForCausalLM(config), lora_config(TrainSpec(lora_r=8, lora_dropout=dropout)))
    ids = torch.randint(0, TINY.vocabulary, (4, 64))
    with counting_saved(model) as saved:
        hidden = model.get_base_model().model(input_ids=ids).last_hidden_state
        total = saved()
    assert hidden.requires_grad
    return total, ids.numel()


def test_activations_are_what_autograd_keeps() -> None:
    measured, tokens = saved_bytes(dropout=0)
    computed = TINY.layers * tokens * estimate.layer_activation_bytes(TINY, "float32", 8, dropout=False)
    assert computed == pytest.approx(measured, rel=0.25)


def test_the_adapters_parameters_cost_sixteen_bytes() -> None:
    assert estimate.adapter_bytes(TINY, 8) == 16 * TINY.lora_parameters(8)


def test_packed_weights_take_the_papers_bits() -> None:
    shape = qwen()
    rest = 2 * (shape.parameters - shape.linear_parameters)
    packed = estimate.weight_bytes(shape, "4bit", "bfloat16") - rest
    assert 8 * packed / shape.linear_parameters == pytest.approx(4.127)
    assert estimate.weight_bytes(shape, "none", "bfloat16") == 2 * shape.parameters
    assert estimate.weight_bytes(shape, "8bit", "bfloat16") - rest == shape.linear_parameters


@pytest.mark.parametrize("entry", CANDIDATES, ids=lambda entry: entry.hub_id)
def test_packing_and_recomputing_save_memory(entry: Candidate) -> None:
    def total(quantization: str, recompute: bool) -> float:
        return training_memory(
            entry.shape, FULL, quantization=quantization, dtype="bfloat16", rank=16, recompute=recompute
        ).total

    assert total("4bit", True) < total("8bit", True) < total("none", True) < total("none", False)


@pytest.mark.parametrize("entry", CANDIDATES, ids=lambda entry: entry.hub_id)
@pytest.mark.parametrize("quantization", ["4bit", "8bit", "none"])
def test_the_documents_table_is_not_exceeded_with_its_own_recipe(entry: Candidate, quantization: str) -> None:
    """Batch 4 x 512 tokens, recomputed as the document's script does; logits of the answers' half."""
    batch = replace(FULL, answer_tokens=FULL.tokens // 2)
    ours = training_memory(entry.shape, batch, quantization=quantization, dtype="bfloat16", rank=16, recompute=True)
    document = estimate.document_vram_gb(entry.published, quantization)
    assert document is not None
    assert 0.15 * document < ours.total / GIB < 1.25 * document


@pytest.mark.parametrize("entry", CANDIDATES, ids=lambda entry: entry.hub_id)
def test_the_page_on_models_has_these_figures(entry: Candidate) -> None:
    def cell(quantization: str) -> str:
        short, full = (
            training_memory(
                entry.shape, batch, quantization=quantization, dtype="bfloat16", rank=16, recompute=batch.tokens > 256
            ).total
            for batch in (Batch(256, 80), Batch(2048, 1024))
        )
        document = estimate.document_vram_gb(entry.published, quantization)
        return f"{short / GIB:.1f} / {full / GIB:.1f} / ~{document}"

    row = f"| {entry.hub_id} | {cell('4bit')} | {cell('8bit')} | {cell('none')} |"
    assert row in (Path(__file__).parents[3] / "docs/models.md").read_text("utf-8")


def test_longer_batches_take_more_and_only_answers_have_logits() -> None:
    short = training_memory(qwen(), Batch(320, 80), quantization="none", dtype="bfloat16", rank=16)
    long = training_memory(qwen(), Batch(640, 80), quantization="none", dtype="bfloat16", rank=16)
    assert long.activations == 2 * short.activations
    assert long.logits == short.logits == 80 * 151_936 * 10


@pytest.mark.parametrize(
    ("parameters", "row"),
    [(1e6, None), (494e6, 8), (1.24e9, 16), (1.54e9, 16), (2.6e9, 24), (3.8e9, 24), (7.2e9, 56), (70e9, None)],
)
def test_the_nearest_row_of_the_document_counts(parameters: float, row: int | None) -> None:
    assert estimate.document_vram_gb(int(parameters), "none") == row


def test_flops_count_each_forward_pass() -> None:
    assert estimate.training_flops(10, 5) == 200
    assert estimate.training_flops(10, 5, recompute=True) == 300
    assert estimate.training_flops(10, 5, recompute=True, reference=True) == 400


def test_time_agrees_with_the_reference_times_of_two_cores() -> None:
    """59 M parameters, 2,720 tokens: 7.6 s flattened, at 170 GFLOP/s of matrix products (../shared/facts.md)."""
    seconds = estimate.seconds_for(estimate.training_flops(59_000_000, 2720), 170e9, "cpu")
    assert seconds == pytest.approx(7.6, rel=0.1)


def test_steps() -> None:
    assert estimate.optimizer_steps(100, 16, 3) == 21
    assert estimate.optimizer_steps(0, 16, 3) == 0
