"""The streaming merge against peft's merge_and_unload and save_pretrained, over random models and adapters."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from cutoff.hub import BaseModel
from cutoff.merger import architecture
from cutoff.merger.adapter import read_adapter
from cutoff.merger.checkpoint import OpenFiles, read_checkpoint
from cutoff.merger.fit import fit_faults
from cutoff.merger.settings import write_config
from cutoff.merger.streaming import plan_stream, reasons_against, stream
from tests.unit.merger.models import MODELS, Recipe, build, merged_by_peft, recipes, save_adapter, untied

TYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
PLAIN = Recipe({"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}, stored_16_bit=False, seed=1)
EMBEDDINGS = (architecture.EMBEDDING, architecture.OUTPUT)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    root = tmp_path_factory.mktemp("models")

    def make(name: str, dtype: str) -> Path:
        folder = root / f"{name}-{dtype}"
        return folder if folder.exists() else build(name, folder, TYPES[dtype], "30KB")

    return make


def merge_streaming(base: Path, adapter: Path, folder: Path, dtype: str, shard_bytes: int = 30_000) -> dict[str, Any]:
    """Merges as the merger does, without its checks of tokenizers; returns the tensors that were written."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    config = json.loads((base / "config.json").read_text())
    tensors, read, files = read_checkpoint(base), read_adapter(adapter), OpenFiles()
    assert reasons_against(read, config, tensors) == []
    assert list(fit_faults(read, BaseModel(base, str(base), None), config, tensors, plain=True)) == []
    plan = plan_stream(read, config, tensors, files)
    stream(plan, folder, dtype, files, lambda _: None, shard_bytes)
    write_config(folder, config, str(TYPES[dtype]).removeprefix("torch."), plan.tied)
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def ulps(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """How many representable numbers two tensors are apart, element by element (sign and magnitude as an integer)."""
    width = torch.int16 if found.element_size() == 2 else torch.int32

    def steps(tensor: torch.Tensor) -> torch.Tensor:
        bits = tensor.contiguous().view(width).long()
        return torch.where(bits < 0, torch.iinfo(width).min - bits, bits)

    return (steps(found) - steps(wanted)).abs()


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_it_is_what_peft_makes(
    data: st.DataObject, models: Callable[[str, str], Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    name, dtype = data.draw(st.sampled_from(sorted(MODELS))), data.draw(st.sampled_from(["F32", "BF16"]))
    recipe = data.draw(recipes(name))
    base, work = models(name, dtype), tmp_path_factory.getbasetemp() / "property"
    adapter = save_adapter(recipe, untied(base, TYPES[dtype]), work / "adapter")
    wanted = merged_by_peft(untied(base, TYPES[dtype]), adapter)
    found = merge_streaming(base, adapter, work / "merged", dtype)
    assert set(wanted) - set(found) <= {architecture.OUTPUT}
    for tensor in found:
        assert found[tensor].dtype == wanted[tensor].dtype
        if dtype == "F32":
            torch.testing.assert_close(found[tensor], wanted[tensor], rtol=1e-5, atol=1e-6)
        else:
            assert ulps(found[tensor], wanted[tensor]).max() <= 1
    reloaded = AutoModelForCausalLM.from_pretrained(work / "merged", dtype=TYPES[dtype]).state_dict()
    assert all(torch.equal(reloaded[tensor], found.get(tensor, found[EMBEDDINGS[0]])) for tensor in wanted)
    if architecture.OUTPUT not in found:
        assert torch.equal(wanted[EMBEDDINGS[0]], wanted[EMBEDDINGS[1]])


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_files_are_those_of_save_pretrained(name: str, models: Callable[[str, str], Path], tmp_path: Path) -> None:
    """Byte by byte, in one file and in several; the index too."""
    base = models(name, "BF16")
    adapter = save_adapter(PLAIN, AutoModelForCausalLM.from_pretrained(base), tmp_path / "adapter")
    loaded = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    wanted: Any = PeftModel.from_pretrained(loaded, adapter).merge_and_unload(safe_merge=True)
    for size in (30_000, 10_000_000):
        wanted.save_pretrained(tmp_path / "wanted", max_shard_size=size)
        merge_streaming(base, adapter, tmp_path / "merged", "BF16", size)
        files = {path.name: path.read_bytes() for path in (tmp_path / "wanted").glob("model*")}
        assert {path.name: path.read_bytes() for path in (tmp_path / "merged").glob("model*")} == files
        shutil.rmtree(tmp_path / "wanted")


@torch.inference_mode()
def logits(model: Any) -> torch.Tensor:
    return model(torch.arange(40).view(2, 20)).logits  # type: ignore[no-any-return]


EMBEDDING_RECIPES: dict[str, dict[str, Any]] = {
    "adapter on the input": {"target_modules": ["q_proj", "embed_tokens"]},
    "adapter on the output": {"target_modules": ["q_proj", "lm_head"]},
    "adapters on both": {"target_modules": ["embed_tokens", "lm_head"]},
    "input trained": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    "output trained": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "both trained": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
}


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("kind", EMBEDDING_RECIPES)
@pytest.mark.parametrize("name", ["gemma2", "llama 3.2"])
@pytest.mark.filterwarnings("ignore:Model has:UserWarning")
def test_tied_embeddings_answer_as_they_were_trained(
    name: str, kind: str, together: bool, models: Callable[[str, str], Path], tmp_path: Path
) -> None:
    """Two where training separated them, one where it kept them together; peft's own merge of some is another model."""
    base = models(name, "F32")
    lora = {"r": 4, "ensure_weight_tying": together, **EMBEDDING_RECIPES[kind]}
    recipe = Recipe(lora, stored_16_bit=False, seed=3)
    adapter = save_adapter(recipe, AutoModelForCausalLM.from_pretrained(base), tmp_path / "adapter")
    found = merge_streaming(base, adapter, tmp_path / "merged", "F32")
    assert (architecture.OUTPUT in found) is not together
    assert json.loads((tmp_path / "merged/config.json").read_text())["tie_word_embeddings"] is together
    plain = AutoModelForCausalLM.from_pretrained(base)
    before = logits(plain)
    trained = logits(PeftModel.from_pretrained(plain, adapter).eval())
    merged = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "merged"))
    torch.testing.assert_close(merged, trained, rtol=1e-4, atol=1e-5)
    assert float((merged - before).abs().max()) > 0.01
