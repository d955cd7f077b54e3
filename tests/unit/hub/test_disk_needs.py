"""What a job writes, and what is said where there is no room for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutoff.artifacts import GIB, DiskNeed, Roots, file_systems, require_room
from cutoff.errors import DiskFull
from cutoff.hub.candidates import candidate
from cutoff.hub.disk_needs import ModelSize, checkpoint_bytes, job_needs
from cutoff.hub.shape import ModelShape
from cutoff.spec import JobSpec, parse_job
from cutoff.spec.quantizations import size_at_most

SHAPE = ModelShape("llama", 4, 256, 512, 4, 2, 64, 1000, tied=True)
QUANT_TYPES = ["f16", "bf16", "q4_k_m", "q8_0", "iq2_xs"]


def job(**sections: dict[str, Any]) -> JobSpec:
    data = {f"{side}_{split}": f"{side}_{split}.jsonl" for side in ("retain", "unlearn") for split in ("train", "val")}
    return parse_job({"name": "j", "base_model": "a/b", "dataset": data, **sections})


def roots(folder: Path, models: Path | None = None) -> Roots:
    return Roots(folder / "datasets", folder / "output", models or folder / "models", folder / "cache")


def test_checkpoints_are_of_the_adapter() -> None:
    assert checkpoint_bytes(ModelSize.of_shape(SHAPE), 8) == SHAPE.lora_parameters(8) * 52


def test_an_adapter_of_an_unknown_model_is_guessed_from_its_width() -> None:
    qwen = candidate("Qwen/Qwen2.5-1.5B-Instruct")
    assert qwen is not None
    known, unknown = ModelSize.of_shape(qwen.shape), ModelSize(qwen.shape.parameters, qwen.shape.hidden)
    assert 1 < unknown.adapter_parameters(16) / known.adapter_parameters(16) < 3
    assert ModelSize(1000, 0).adapter_parameters(16) == 0


def test_a_folder_without_weights_must_be_told_how_many_it_has(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "other", "hidden_size": 64}))
    assert ModelSize.of_folder(tmp_path, 1000) == ModelSize(1000, 64, None)


def test_everything_a_job_writes_is_counted(tmp_path: Path) -> None:
    where = roots(tmp_path)
    where.datasets.mkdir()
    (where.datasets / "retain_train.jsonl").write_bytes(b"x" * 1000)
    spec = job(convert={"quant_types": ["q8_0", "iq2_xs"]}, merge={"dtype": "float32"})
    needs = {need.what: need for need in job_needs(spec, ModelSize.of_shape(SHAPE), where)}
    count = SHAPE.parameters
    assert {what: (need.folder, need.size_bytes) for what, need in needs.items()} == {
        "tokenized data": (where.cache, 2000),
        "checkpoints and adapter": (where.artifacts, SHAPE.lora_parameters(16) * 52),
        "merged model, float32": (where.artifacts, 4 * count),
        "16-bit GGUF, while converting": (where.artifacts, size_at_most(count, "f16")),
        "GGUF q8_0": (where.artifacts, size_at_most(count, "q8_0")),
        "GGUF iq2_xs": (where.artifacts, size_at_most(count, "iq2_xs")),
        "importance matrix": (where.artifacts, 64 << 20),
    }


@given(
    types=st.lists(st.sampled_from(QUANT_TYPES), min_size=1, unique=True),
    keep=st.booleans(),
    install=st.booleans(),
)
def test_more_asked_for_is_never_less_written(types: list[str], keep: bool, install: bool) -> None:
    def total(types: list[str], keep: bool, install: bool) -> int:
        spec = job(convert={"quant_types": types, "keep_f16": keep}, install={"enabled": install})
        here = Path("/").absolute()
        return sum(need.size_bytes for need in job_needs(spec, ModelSize.of_shape(SHAPE), roots(here)))

    asked = total(types, keep, install)
    assert asked >= total(types[:1], keep, install) or "f16" in types
    assert asked <= total(types, True, install)
    assert asked >= total(types, keep, False)


def test_a_copy_on_another_disk_is_counted_there(tmp_path: Path, small_tmpfs: Path) -> None:
    spec, size = job(), ModelSize.of_shape(SHAPE)
    needs = job_needs(spec, size, roots(tmp_path, small_tmpfs / "models"))
    there = next(each for each in file_systems(needs) if each.path == small_tmpfs)
    assert [need.what for need in there.needs] == ["installed q4_k_m"]
    assert not any(need.what.startswith("installed") for need in job_needs(spec, size, roots(tmp_path)))


def test_every_full_disk_is_named_with_its_shortfall(tmp_path: Path, small_tmpfs: Path) -> None:
    needs = [
        DiskNeed("the merged model", tmp_path / "output", 1 << 60),
        DiskNeed("the GGUF", tmp_path / "output", 1 << 60),
        DiskNeed("the copy", small_tmpfs / "not" / "there", 2 * GIB),
    ]
    with pytest.raises(DiskFull) as caught:
        require_room(needs, "job j")
    said = caught.value.message
    assert said.startswith("job j does not fit on the disk:")
    assert f"{small_tmpfs}: needs 2.10 GiB, has 0.00 GiB free, lacks 2.10 GiB" in said
    assert "the merged model 1073741824.00 GiB, the GGUF 1073741824.00 GiB" in said
    assert f"free 2.10 GiB at {small_tmpfs}" in caught.value.remedy
    require_room([DiskNeed("little", tmp_path, 1)], "job j")
