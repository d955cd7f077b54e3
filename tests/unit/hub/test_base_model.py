from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from httpx2 import ConnectError, Request, Response
from huggingface_hub import errors

from cutoff.errors import CutoffError, DiskFull, InvalidInput, NotFound, Refused, Unavailable
from cutoff.hub import check_model_folder, resolve_base_model


def safetensors(path: Path, size: int = 8) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(size))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "llama"}')
    (model / "tokenizer.json").write_text("{}")
    safetensors(model / "model.safetensors")
    return model


def test_a_whole_folder_is_used_in_place(folder: Path) -> None:
    model = resolve_base_model(str(folder))
    assert (model.path, model.name, model.revision) == (folder, str(folder), None)


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def truncated(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-3])


def missing_shard(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))


def config(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "config.json").write_text(text) and None


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (pickled, "pickles only.*can run code"),
        (truncated, "has .* bytes where its header says"),
        (missing_shard, "model-00002-of-00002.safetensors: is missing"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"GGUF"), "is not a safetensors file"),
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no safetensors weights"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "holds no tokenizer"),
        (lambda folder: (folder / "config.json").unlink(), "holds no config.json"),
        (config("{"), "config.json: is not JSON"),
        (config("{}"), "names no model_type"),
        (config('{"model_type": "made-up"}'), "is no causal language model"),
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


def response(status: int) -> Response:
    return Response(status, request=Request("GET", "https://huggingface.co/o/m"))


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (errors.GatedRepoError("gated", response=response(403)), Refused, "HF_TOKEN"),
        (errors.RepositoryNotFoundError("no", response=response(404)), NotFound, "spelling"),
        (errors.RevisionNotFoundError("no", response=response(404)), NotFound, "no revision 'v9'"),
        (errors.HfHubHTTPError("busy", response=response(503)), Unavailable, "try again later"),
        (ConnectError("Name or service not known"), Unavailable, "not in the cache"),
        (errors.OfflineModeIsEnabled("offline"), Unavailable, "not in the cache"),
    ],
)
def test_what_the_hub_answers_gets_a_name_and_a_remedy(
    monkeypatch: pytest.MonkeyPatch, answer: Exception, kind: type[CutoffError], words: str
) -> None:
    def model_info(*_: object, **__: object) -> None:
        raise answer

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    with pytest.raises(kind) as caught:
        resolve_base_model("o/m-that-nobody-has@v9")
    assert words in str(caught.value)


class Hub:
    """A hub with one model; remembers what was fetched."""

    def __init__(self, folder: Path, files: dict[str, int]) -> None:
        self.folder = folder
        self.files = files
        self.fetched: list[str] = []

    def model_info(self, *_: object, **__: object) -> SimpleNamespace:
        siblings = [SimpleNamespace(rfilename=name, size=size) for name, size in self.files.items()]
        return SimpleNamespace(id="o/m", sha="c0ffee", siblings=siblings)

    def download(self, _: str, name: str, revision: str | None) -> str:
        if revision == "c0ffee":
            self.fetched.append(name)
        return str(self.folder / name)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", self.model_info)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", self.download)


def test_only_safe_files_of_one_set_of_weights_are_fetched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {"config.json": 1, "tokenizer.json": 2, "model.safetensors": 30}
    others = ("pytorch_model.bin", "consolidated.safetensors", "original/model.safetensors", "modeling.py")
    hub = Hub(folder, {**wanted, **dict.fromkeys(others, 5)})
    hub.install(monkeypatch)
    told: list[tuple[int, int]] = []
    model = resolve_base_model("o/m", lambda done, total: told.append((done, total)))
    assert hub.fetched == list(wanted)
    assert told == [(1, 33), (3, 33), (33, 33)]
    assert (model.path, model.name, model.revision) == (folder, "o/m", "c0ffee")


def test_a_model_of_pickles_is_refused_before_it_is_fetched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(folder, {"config.json": 1, "pytorch_model.bin": 5})
    hub.install(monkeypatch)
    with pytest.raises(InvalidInput, match="has no safetensors weights"):
        resolve_base_model("o/m")
    assert hub.fetched == []


def test_a_model_larger_than_the_disk_is_refused_before_it_is_fetched(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(folder, {"config.json": 1, "model.safetensors": 1 << 60})
    hub.install(monkeypatch)
    with pytest.raises(DiskFull, match="fetching o/m needs"):
        resolve_base_model("o/m")
    assert hub.fetched == []
