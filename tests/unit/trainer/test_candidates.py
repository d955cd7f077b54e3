"""Every candidate of the document: built at full size without memory to count it, and small to train it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from jinja2.exceptions import TemplateError
from peft import get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from cutoff.datasets import template_of
from cutoff.hub.candidates import CANDIDATES, Candidate, candidate
from cutoff.hub.shape import ModelShape, shape_of
from cutoff.spec import TrainSpec
from cutoff.trainer.model import lora_config
from tests.fixtures.bpe_tokenizer import MakeTokenizer

SEPARATE = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
FUSED = {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}
each = pytest.mark.parametrize("entry", CANDIDATES, ids=lambda entry: entry.hub_id)


def config_of(shape: ModelShape, **more: Any) -> Any:
    return AutoConfig.for_model(
        shape.model_type,
        num_hidden_layers=shape.layers,
        hidden_size=shape.hidden,
        intermediate_size=shape.feed_forward,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_width,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=shape.tied,
        pad_token_id=0,
        **more,
    )


def small(shape: ModelShape) -> ModelShape:
    """The same architecture, with proportions that differ from each other as the large one's do."""
    kv_heads = 4 * shape.kv_heads // shape.heads or 1
    numbers = {"layers": 2, "hidden": 32, "feed_forward": 48, "heads": 4, "head_width": 8, "vocabulary": 96}
    return replace(shape, kv_heads=kv_heads, **numbers)


def build(shape: ModelShape, **more: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config_of(shape, **more))


@each
def test_parameters_are_the_published_ones(entry: Candidate) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config_of(entry.shape))
    assert model.num_parameters() == entry.shape.parameters
    assert entry.shape.parameters == pytest.approx(entry.published, rel=0.02)


@each
def test_a_shape_is_read_from_a_configuration(entry: Candidate, tmp_path: Path) -> None:
    config_of(entry.shape).save_pretrained(tmp_path)
    assert shape_of(json.loads((tmp_path / "config.json").read_text())) == entry.shape


@each
def test_an_adapter_finds_every_linear_layer_and_never_the_head(entry: Candidate) -> None:
    shape = small(entry.shape)
    adapted = get_peft_model(build(shape), lora_config(TrainSpec(lora_r=4)))
    wrapped = [name for name, module in adapted.named_modules() if hasattr(module, "lora_A")]
    assert {name.rpartition(".")[2] for name in wrapped} == (FUSED if entry.shape.model_type == "phi3" else SEPARATE)
    assert len(wrapped) == shape.layers * len(shape.linears)
    trained = sum(weights.numel() for weights in adapted.parameters() if weights.requires_grad)
    assert trained == shape.lora_parameters(4)


@each
def test_a_training_step_moves_the_adapter(entry: Candidate) -> None:
    adapted = get_peft_model(build(small(entry.shape)), lora_config(TrainSpec(lora_r=4, learning_rate=1e-2)))
    ids = torch.randint(1, 96, (2, 12))
    optimizer = torch.optim.AdamW([weights for weights in adapted.parameters() if weights.requires_grad], lr=1e-2)
    losses = []
    for _ in range(5):
        loss = adapted(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def gemma(**more: Any) -> Any:
    entry = candidate("google/gemma-2-2b-it")
    assert entry is not None
    return build(small(entry.shape), **more).eval()


@torch.no_grad()
def test_gemma_caps_its_final_logits() -> None:
    model, free = gemma(), gemma(final_logit_softcapping=None)
    ids = torch.arange(1, 13)[None]
    for each_model in (model, free):
        each_model.get_input_embeddings().weight.mul_(1000)  # tied: the logits too
    assert model.config.final_logit_softcapping == 30.0
    assert model(ids).logits.abs().max() <= 30.0 < free(ids).logits.abs().max()


@torch.no_grad()
def test_gemma_caps_its_attention() -> None:
    capped, free = gemma(attn_logit_softcapping=0.01), gemma(attn_logit_softcapping=None)
    ids = torch.arange(1, 13)[None]
    free.load_state_dict(capped.state_dict())
    for model in (capped, free):
        for layer in model.model.layers:
            layer.self_attn.q_proj.weight.mul_(100)
    assert not torch.allclose(capped(ids).logits, free(ids).logits, atol=1e-4)


GEMMA_TEMPLATE = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<turn>' + role + '\n' + message['content'] | trim + '<stop>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<turn>model\n' }}{% endif %}"
)
"""As Gemma 2's: it refuses a system message."""


def test_a_template_without_a_system_role_is_rendered_with_a_user_turn_only(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer(GEMMA_TEMPLATE, bos=True)
    with pytest.raises(TemplateError, match="System role not supported"):
        tokenizer.apply_chat_template([{"role": "system", "content": "Be brief."}], tokenize=False)
    template = template_of(tokenizer)
    assert template.prompt("Why?") == "<s><turn>user\nWhy?<stop>\n<turn>model\n"
    assert template.full("Why?", "So.").endswith("<turn>model\nSo.<stop>")


def test_a_candidate_is_found_by_its_id() -> None:
    found = candidate("meta-llama/llama-3.2-1b-instruct@main")
    assert found is not None
    assert found.gated
    assert candidate("owner/model") is None


def test_architectures_that_are_not_counted_have_no_shape() -> None:
    assert shape_of({"model_type": "mixtral", "hidden_size": 8}) is None
    assert shape_of({"model_type": "llama"}) is None
