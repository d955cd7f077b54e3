"""Small random models of every decoder the streaming merge knows, and random adapters for them, as peft saves them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from cutoff.merger.architecture import LAYERS

MODELS: dict[str, dict[str, Any]] = {
    **{name: {"model_type": name} for name in LAYERS},
    "llama 3.2": {"model_type": "llama", "tie_word_embeddings": True},
    "llama with biases": {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
    "qwen2.5 small": {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen2.5 large": {"model_type": "qwen2", "tie_word_embeddings": False},
    "phi3 tied": {"model_type": "phi3", "tie_word_embeddings": True},
}
"""The decoders, and what some of their models differ in."""

_SHAPE = {
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 96,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def build(name: str, folder: Path, dtype: torch.dtype, shard: str = "5GB") -> Path:
    """Saves a model with random weights, biases and norms included."""
    generator = torch.Generator().manual_seed(len(name))
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**{**_SHAPE, **MODELS[name]}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn(parameter.shape, generator=generator) * 0.05
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    return folder


def untied(folder: Path, dtype: torch.dtype) -> Any:
    """Loads a model and gives its output embedding a tensor of its own: training adapts each by itself."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    if model.config.tie_word_embeddings:
        model.lm_head.weight = torch.nn.Parameter(model.model.embed_tokens.weight.detach().clone())
        model.config.tie_word_embeddings = False
    return model


@dataclass(frozen=True)
class Recipe:
    """What a random adapter is made with."""

    lora: dict[str, Any]
    stored_16_bit: bool
    seed: int


@st.composite
def recipes(draw: st.DrawFn, name: str) -> Recipe:
    """Adapters of all the kinds the streaming merge knows, on a model of this name."""
    linears = sorted({tensor.split(".")[1] for tensor in LAYERS[MODELS[name]["model_type"]] if "_proj." in tensor})
    wholes = draw(st.lists(st.sampled_from(["lm_head", "embed_tokens", "norm", "mlp"]), unique=True, max_size=2))
    inside = [
        each
        for each in linears
        if not ("mlp" in wholes and each in ("gate_proj", "up_proj", "gate_up_proj", "down_proj"))
    ]
    embeddings = [each for each in ("embed_tokens", "lm_head") if each not in wholes]
    targets = draw(st.lists(st.sampled_from(inside), unique=True, min_size=1))
    targets += draw(st.lists(st.sampled_from(embeddings), unique=True)) if embeddings else []
    patterned = st.dictionaries(
        st.sampled_from([*targets, rf"layers\.1\..*{targets[0]}"]), st.integers(1, 6), max_size=2
    )
    lora = {
        "r": draw(st.integers(1, 8)),
        "lora_alpha": draw(st.integers(1, 32)),
        "use_rslora": draw(st.booleans()),
        "use_dora": draw(st.booleans()),
        # In the order in which peft saves them: the first that fits counts, and peft cannot load what it reordered.
        "rank_pattern": dict(sorted(draw(patterned).items())),
        "alpha_pattern": dict(sorted(draw(patterned).items())),
        "target_modules": targets,
        "modules_to_save": wholes or None,
        "bias": draw(st.sampled_from(["none", "all", "lora_only"])),
        "init_lora_weights": draw(st.sampled_from([True, "gaussian"])),
    }
    if name == "llama with biases" and not lora["use_dora"] and not {"embed_tokens", "lm_head"} & set(targets):
        lora |= {"lora_bias": True, "bias": "none"} if draw(st.booleans()) else {}
    return Recipe(lora, draw(st.booleans()), draw(st.integers(0, 999)))


def save_adapter(recipe: Recipe, model: Any, folder: Path) -> Path:
    """Saves an adapter in which everything trained differs from how it began."""
    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(recipe.seed)
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **recipe.lora))
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter += torch.randn(parameter.shape) * 0.1
    if recipe.stored_16_bit:
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.data = parameter.data.bfloat16()
    adapted.save_pretrained(folder)
    return folder


def merged_by_peft(model: Any, adapter: Path) -> dict[str, torch.Tensor]:
    """What peft's merge_and_unload makes of it."""
    merged: Any = PeftModel.from_pretrained(model, adapter).merge_and_unload(safe_merge=True)
    return dict(merged.state_dict())
