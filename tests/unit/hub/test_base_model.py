from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cutoff.errors import InvalidInput, NotFound
from cutoff.hub import check_model_folder, resolve_base_model
from tests.fixtures.hub_server import safetensors


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "llama"}')
    (model / "tokenizer.json").write_text("{}")
    (model / "model.safetensors").write_bytes(safetensors(8))
    return model


def test_a_whole_folder_is_used_in_place(folder: Path) -> None:
    model = resolve_base_model(str(folder))
    assert (model.path, model.name, model.revision) == (folder, str(folder), None)


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def sharded_pickles(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model-00001-of-00001.bin")
    index(folder, "pytorch_model.bin.index.json", "pytorch_model-00001-of-00001.bin")


def truncated(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-3])


def missing_shard(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    index(folder, "model.safetensors.index.json", *(f"model-0000{number}-of-00002.safetensors" for number in (1, 2)))


def index(folder: Path, name: str, *shards: str) -> None:
    (folder / name).write_text(json.dumps({"weight_map": dict(enumerate(shards))}))


def indexed(*shards: str) -> Callable[[Path], None]:
    return lambda folder: index(folder, "model.safetensors.index.json", *shards)


def config(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "config.json").write_text(text) and None


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (pickled, "pickles only.*can run code"),
        (sharded_pickles, "pickles only.*can run code"),
        (indexed("model.safetensors", "pytorch_model-00001-of-00002.bin"), "names 'pytorch_model-00001.*pickles"),
        (indexed("../model.safetensors"), "names '../model.safetensors' as weights"),
        (indexed("/etc/model.safetensors"), "names '/etc/model.safetensors' as weights"),
        (indexed(), "is not an index of weights"),
        (truncated, "has .* bytes where its header says"),
        (missing_shard, "model-00002-of-00002.safetensors: is missing"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"GGUF"), "is not a safetensors file"),
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no safetensors weights"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "holds no tokenizer"),
        (lambda folder: (folder / "config.json").unlink(), "holds no config.json"),
        (config("{"), "config.json: is not JSON"),
        (config("{}"), "names no model_type"),
        (config('{"model_type": "made-up"}'), "is no causal language model"),
        (config('{"model_type": "made-up", "auto_map": {"AutoConfig": "c.C"}}'), "only code in its own repository"),
        (config('{"model_type": "llama", "quantization_config": {"quant_method": "gptq"}}'), "quantized with gptq"),
    ],
)
def test_what_lacks_or_is_broken_is_named(folder: Path, spoil: Callable[[Path], object], what: str) -> None:
    spoil(folder)
    with pytest.raises(InvalidInput, match=what) as caught:
        check_model_folder(folder)
    assert all(fault.fix for fault in caught.value.faults)


def test_all_faults_of_a_folder_come_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_model_folder(tmp_path)
    assert len(caught.value.faults) == 3
    with pytest.raises(NotFound):
        resolve_base_model(str(tmp_path / "none"))


def test_code_beside_a_known_architecture_is_no_fault(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "phi3", "auto_map": {"AutoConfig": "c.C"}}')
    check_model_folder(folder)
