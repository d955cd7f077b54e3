"""Adapters and base models that do not belong together, or are not whole: named, and nothing published."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from cutoff.errors import InvalidInput, as_cutoff_error
from cutoff.hub import BaseModel
from cutoff.merger.merge import MergePlan, merge
from cutoff.stage.report import Reporter, silent
from cutoff.v1 import types_pb2

INDEX = "model.safetensors.index.json"


@pytest.fixture
def sharded(base: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "sharded"
    shutil.copytree(base, folder)
    (folder / "model.safetensors").unlink()
    AutoModelForCausalLM.from_pretrained(base).save_pretrained(folder, max_shard_size="100KB")
    return folder


@pytest.fixture
def copied(adapter: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(adapter, tmp_path / "copied"))


def faults(base: Path, adapter: Path, output: Path, name: str | None = None, revision: str | None = None) -> str:
    with pytest.raises(InvalidInput) as caught:
        merge(MergePlan(BaseModel(base, name or str(base), revision), adapter, output), silent())
    assert not output.exists()
    assert not list(output.parent.glob(f".{output.name}*"))
    return str(caught.value)


def change(folder: Path, edit: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "adapter_model.safetensors")


def test_a_sharded_model_is_merged_as_one_in_a_file(base: Path, sharded: Path, adapter: Path, tmp_path: Path) -> None:
    for folder in (base, sharded):
        plan = MergePlan(
            BaseModel(folder, str(folder), None), adapter, tmp_path / f"merged-{folder.name}", verify=False
        )
        merge(plan, silent())
    one, other = (load_file(tmp_path / f"merged-{folder.name}/model.safetensors") for folder in (base, sharded))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_an_index_that_lacks_a_tensor(sharded: Path, adapter: Path, tmp_path: Path) -> None:
    index = json.loads((sharded / INDEX).read_text())
    file = index["weight_map"].pop("model.layers.1.mlp.up_proj.weight")
    (sharded / INDEX).write_text(json.dumps(index))
    said = faults(sharded, adapter, tmp_path / "merged")
    assert f"does not name model.layers.1.mlp.up_proj.weight, which is in {file}; fetch the file again" in said


def test_an_index_that_names_the_wrong_file(sharded: Path, adapter: Path, tmp_path: Path) -> None:
    index = json.loads((sharded / INDEX).read_text())
    wrong = next(file for file in index["weight_map"].values() if file != index["weight_map"]["model.norm.weight"])
    index["weight_map"]["model.norm.weight"] = wrong
    (sharded / INDEX).write_text(json.dumps(index))
    assert f"says that model.norm.weight is in {wrong}, which does not hold it" in faults(
        sharded, adapter, tmp_path / "merged"
    )


def test_a_truncated_shard(sharded: Path, adapter: Path, tmp_path: Path) -> None:
    shard = min(sharded.glob("model-*"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1000])
    said = faults(sharded, adapter, tmp_path / "merged")
    assert f"{shard}: has {len(whole) - 1000} bytes where its header says {len(whole)}" in said
    shard.unlink()
    assert f"{shard}: is missing" in faults(sharded, adapter, tmp_path / "merged")


def test_a_tensor_the_model_lacks_is_not_made_up(base: Path, adapter: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(base, tmp_path / "base"))
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.0.input_layernorm.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    said = faults(folder, adapter, tmp_path / "merged")
    assert "lacks model.layers.0.input_layernorm.weight; fetch the model again" in said


def test_all_that_does_not_fit_is_told_at_once(base: Path, copied: Path, tmp_path: Path) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        layer = "base_model.model.model.layers"
        del tensors[f"{layer}.0.mlp.up_proj.lora_B.weight"]
        tensors[f"{layer}.0.mlp.down_proj.lora_A.weight"] = torch.zeros(4, 97)
        tensors[f"{layer}.7.mlp.up_proj.lora_A.weight"] = torch.zeros(4, 64)
        tensors[f"{layer}.7.mlp.up_proj.lora_B.weight"] = torch.zeros(96, 4)
        tensors[f"{layer}.1.mlp.up_proj.lora_A.weight"] = torch.zeros(2, 64)
        tensors[f"{layer}.1.mlp.up_proj.lora_B.weight"] = torch.zeros(96, 2)

    change(copied, spoil)
    config = json.loads((copied / "adapter_config.json").read_text())
    cached = "/elsewhere/hub/models--Qwen--Two/snapshots/c0ffee"
    targets = [*config["target_modules"], "model.layers.7.mlp.up_proj"]
    changed = config | {"base_model_name_or_path": cached, "target_modules": targets}
    (copied / "adapter_config.json").write_text(json.dumps(changed))
    said = faults(base, copied, tmp_path / "merged", "Qwen/One", "c0ffee")
    assert "was trained on Qwen/Two, not on Qwen/One; merge it into Qwen/Two" in said
    for what in (
        "model.layers.0.mlp.up_proj has half of its pair",
        "model.layers.0.mlp.down_proj is 64 x 96 there, 64 x 97 here",
        "model.layers.7.mlp.up_proj is not there",
        "model.layers.1.mlp.up_proj has rank 2, 4 in the configuration",
    ):
        assert what in said


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ({"init_lora_weights": "olora"}, "init_lora_weights: olora changes the base model"),
        ({"target_modules": ["q_proj"]}, "target_modules leave out model.layers.0.mlp.down_proj"),
        ({"some_new_setting": 3}, "some_new_setting is set"),
    ],
)
def test_what_the_streaming_merge_does_not_know_is_left_to_peft_and_said(
    base: Path, copied: Path, tmp_path: Path, setting: dict[str, Any], why: str
) -> None:
    config = json.loads((copied / "adapter_config.json").read_text())
    (copied / "adapter_config.json").write_text(json.dumps(config | setting))
    events: list[types_pb2.Event] = []
    plan = MergePlan(BaseModel(base, str(base), None), copied, tmp_path / "merged")
    result = merge(plan, Reporter(events.append))
    assert (result.method, result.peft_because[0]) == ("peft", why)
    (line,) = [event.log_line.text for event in events if event.log_line.level == "WARNING"]
    assert line.startswith("peft merges, with the whole model in memory: ")
    assert why in line


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)]
    made = subprocess.run(mount, check=False, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"only root may mount a small disk here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_half_way_leaves_nothing(
    base: Path, adapter: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The preflight is told that there is room: somebody else fills the disk meanwhile."""
    monkeypatch.setattr("cutoff.merger.merge.require_space", lambda *_: None)
    with pytest.raises(OSError, match="No space left on device") as caught:
        merge(MergePlan(BaseModel(base, str(base), None), adapter, small_disk / "merged", verify=False), silent())
    told = as_cutoff_error(caught.value, str(small_disk))
    assert told is not None
    assert told.reason == "DISK_FULL"
    assert re.search("ran full while writing .*disk", told.message)
    assert list(small_disk.iterdir()) == []
