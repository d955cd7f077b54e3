"""Adapters trained on packed weights: what they are merged into, and what the difference is said to be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from cutoff.errors import InvalidInput, Refused
from cutoff.hub import BaseModel, TrainedOn, bits_and_bytes
from cutoff.hub.quantized_base import Quantization
from cutoff.merger.merge import MergePlan, MergeResult, merge
from cutoff.stage.report import silent

KINDS = ["4bit", "8bit"]


@pytest.fixture
def trained_on(adapter: Path, tmp_path: Path) -> Any:
    def make(quantization: str) -> Path:
        folder = tmp_path / quantization
        shutil.copytree(adapter, folder, dirs_exist_ok=True)
        TrainedOn(cast(Quantization, quantization), "float32").write(folder)
        return folder

    return make


def run(base: Path, adapter: Path, output: Path, **options: Any) -> MergeResult:
    return merge(MergePlan(BaseModel(base, str(base), None), adapter, output, **options), silent())


@pytest.mark.parametrize("kind", KINDS)
def test_dequantized_is_what_training_saw(kind: str, base: Path, trained_on: Any, tmp_path: Path) -> None:
    adapter = trained_on(kind)
    result = run(base, adapter, tmp_path / "merged", dtype="float32", into="dequantized")
    packed: Any = AutoModelForCausalLM.from_pretrained(
        base,
        dtype=torch.float32,
        quantization_config=bits_and_bytes(cast(Quantization, kind), torch.float32),
        device_map={"": "cpu"},
    )
    wanted = PeftModel.from_pretrained(packed.dequantize().float(), adapter).merge_and_unload().state_dict()
    found = load_file(result.path / "model.safetensors")
    plain = load_file(base / "model.safetensors")
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, wanted[name], rtol=1e-5, atol=1e-6)
    assert torch.equal(found["model.embed_tokens.weight"], plain["model.embed_tokens.weight"])


@pytest.mark.parametrize("kind", KINDS)
def test_the_difference_to_training_is_told_for_either_choice(
    kind: str, base: Path, trained_on: Any, tmp_path: Path
) -> None:
    adapter = trained_on(kind)
    choices = {into: run(base, adapter, tmp_path / into, into=into) for into in ("original", "dequantized")}
    told = {into: result.verified.packed_kl for into, result in choices.items() if result.verified}
    assert told["original"] is not None
    assert 0 < told["dequantized"] < told["original"]


def test_training_on_plain_weights_has_no_such_difference(base: Path, adapter: Path, tmp_path: Path) -> None:
    result = run(base, adapter, tmp_path / "merged")
    assert result.verified is not None
    assert result.verified.packed_kl is None


def test_what_was_not_packed_is_not_unpacked(base: Path, adapter: Path, trained_on: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="does not say what it was trained on"):
        run(base, adapter, tmp_path / "merged", into="dequantized")
    with pytest.raises(InvalidInput, match="was not trained on packed weights"):
        run(base, trained_on("none"), tmp_path / "merged", into="dequantized")
    (trained_on("4bit") / "trained_on.json").write_text('{"quantization": "2bit"}')
    with pytest.raises(InvalidInput, match=r"trained_on\.json: says"):
        run(base, tmp_path / "4bit", tmp_path / "merged")


def test_peft_does_not_merge_into_unpacked_weights(base: Path, trained_on: Any, tmp_path: Path) -> None:
    adapter = trained_on("4bit")
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "init_lora_weights": "pissa"}))
    with pytest.raises(Refused, match="only peft can merge this adapter"):
        run(base, adapter, tmp_path / "merged", into="dequantized")
