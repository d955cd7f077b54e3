"""What peft merges: embeddings that training separated are two, and nothing is published uncompared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from cutoff.errors import CheckFailed, InvalidInput
from cutoff.hub import BaseModel, load_tokenizer, tokenizer_files
from cutoff.merger import merge as merging
from cutoff.merger.merge import MergePlan, merge
from cutoff.stage.report import silent

_SMALL: dict[str, Any] = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2, "pad_token_id": 0}
STRANGE: dict[str, dict[str, Any]] = {
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32, "max_position_embeddings": 512},
    "cohere": {"intermediate_size": 48, "num_key_value_heads": 1, "max_position_embeddings": 512},
}
"""Decoders the streaming merge does not know; their embeddings are one."""


def build(kind: str, base: Path, folder: Path) -> Path:
    torch.manual_seed(3)
    tokens = len(load_tokenizer(base))
    config = AutoConfig.for_model(kind, **_SMALL, **STRANGE[kind], vocab_size=tokens, tie_word_embeddings=True)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn(parameter.shape) * 0.1
    model.save_pretrained(folder)
    for path in tokenizer_files(base):
        shutil.copyfile(path, folder / path.name)
    return folder


def adapt(base: Path, folder: Path, **lora: Any) -> Path:
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(task_type="CAUSAL_LM", r=4, **lora))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += torch.randn(parameter.shape) * 0.1
    model.save_pretrained(folder)
    for path in tokenizer_files(base):
        shutil.copyfile(path, folder / path.name)
    return folder


@torch.inference_mode()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model.eval()(torch.tensor([[5, 6, 7, 8]])).logits
    return found


@pytest.mark.parametrize("kind", STRANGE)
@pytest.mark.parametrize(
    ("lora", "tied"),
    [
        ({"target_modules": ["q_proj", "lm_head"]}, False),
        ({"target_modules": ["q_proj", "embed_tokens"]}, False),
        ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, False),
        ({"target_modules": ["q_proj"]}, True),
        ({"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}, True),
        ({"target_modules": ["q_proj", "embed_tokens"], "ensure_weight_tying": True}, True),
    ],
)
def test_tied_embeddings_are_two_where_training_separated_them(
    base: Path, tmp_path: Path, kind: str, lora: dict[str, Any], tied: bool
) -> None:
    model = build(kind, base, tmp_path / "model")
    adapter = adapt(model, tmp_path / "adapter", **lora)
    plan = MergePlan(BaseModel(model, str(model), None), adapter, tmp_path / "merged", "float32", verify=False)
    result = merge(plan, silent())
    assert result.method == "peft"
    assert result.verified is not None  # asked for or not
    assert json.loads((result.path / "config.json").read_text())["tie_word_embeddings"] is tied
    wanted = logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), adapter))
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(result.path)), wanted, rtol=1e-4, atol=1e-4)


def test_what_peft_merged_wrongly_is_not_published(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = merging._write_weights

    def spoiled(folder: Path, *rest: Any) -> dict[str, str]:
        hashed: dict[str, str] = real(folder, *rest)
        tensors = load_file(folder / "model.safetensors")
        save_file({name: each + 0.1 for name, each in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
        return hashed

    monkeypatch.setattr(merging, "_write_weights", spoiled)
    model = build("opt", base, tmp_path / "model")
    adapter = adapt(model, tmp_path / "adapter", target_modules=["q_proj"])
    plan = MergePlan(BaseModel(model, str(model), None), adapter, tmp_path / "merged", verify=False)
    with pytest.raises(CheckFailed, match="differs from base and adapter"):
        merge(plan, silent())
    assert not plan.output.exists()


def test_an_adapter_that_lacks_a_layer_is_refused_here_too(base: Path, tmp_path: Path) -> None:
    model = build("opt", base, tmp_path / "model")
    adapter = adapt(model, tmp_path / "adapter", target_modules=["q_proj"])
    tensors = load_file(adapter / "adapter_model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if "layers.1." not in name}
    save_file(kept, adapter / "adapter_model.safetensors")
    plan = MergePlan(BaseModel(model, str(model), None), adapter, tmp_path / "merged", verify=False)
    with pytest.raises(InvalidInput, match=r"lacks .*layers\.1\.self_attn\.q_proj"):
        merge(plan, silent())
    assert not plan.output.exists()
