"""What is found out of a model before it is trained, with the pinned llama.cpp itself."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import grpc.aio
import pytest

from cutoff.artifacts import Roots
from cutoff.coordinator import stage_services
from cutoff.errors import DiskFull, InvalidInput, NotFound, Refused
from cutoff.gguf_converter.model_checks import check_model
from cutoff.gguf_converter.service import GgufConverterServicer
from cutoff.hub import tokenizer_files
from cutoff.llama_cpp import LlamaCpp
from cutoff.rpc import ServerSecurity
from cutoff.rpc.server import started
from cutoff.spec import parse_job, spec_to_proto
from cutoff.v1 import gguf_converter_pb2, gguf_converter_pb2_grpc
from tests.fixtures.bpe_tokenizer import MakeTokenizer

DATA = {f"{side}_{split}": f"{side}_{split}.jsonl" for side in ("retain", "unlearn") for split in ("train", "val")}


@pytest.fixture
def own(tmp_path: Path, tiny_model: Path) -> Roots:
    """Folders of the test's own, with a description as prepare leaves it."""
    folder = tmp_path / "output" / "description"
    folder.mkdir(parents=True)
    for path in (tiny_model / "config.json", *tokenizer_files(tiny_model)):
        shutil.copyfile(path, folder / path.name)
    return Roots(tmp_path, tmp_path / "output", tmp_path / "models", Roots.from_environment().cache)


def asked(parameters: int = 1000, **sections: object) -> gguf_converter_pb2.CheckModelRequest:
    spec = parse_job({"name": "j", "base_model": "owner/model", "dataset": DATA, **sections})
    return gguf_converter_pb2.CheckModelRequest(
        spec=spec_to_proto(spec), description="description", parameters=parameters
    )


def test_a_known_model_is_told_by_its_description_alone(own: Roots, llama: LlamaCpp) -> None:
    assert check_model(own, asked()) == llama.version()
    assert sorted(path.name for path in own.artifacts.iterdir()) == ["description"]
    assert not own.models.exists()


def test_an_unknown_tokenizer_is_named(own: Roots, llama: LlamaCpp, make_tokenizer: MakeTokenizer) -> None:
    folder = own.artifacts / "description"
    for path in tokenizer_files(folder):
        path.unlink()
    make_tokenizer("{{ messages }}").save_pretrained(folder)
    with pytest.raises(
        Refused, match=r"does not know the tokenizer of owner/model \(.*pre-tokenizer [0-9a-f]{12}"
    ) as told:
        check_model(own, asked())
    assert "take another base model" in told.value.remedy
    assert "convert.llama_cpp_path" in told.value.remedy


def test_an_unknown_architecture_is_named(own: Roots, llama: LlamaCpp) -> None:
    config = own.artifacts / "description" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"architectures": ["NobodyForCausalLM"]}))
    with pytest.raises(Refused, match=r"does not know the architecture of owner/model \(NobodyForCausalLM\)"):
        check_model(own, asked())


def test_a_sentencepiece_tokenizer_without_its_file_is_named(own: Roots, llama: LlamaCpp) -> None:
    for name in ("tokenizer.model", "tokenizer.json"):
        (own.artifacts / "description" / name).unlink()
    with pytest.raises(Refused, match="does not know the tokenizer of owner/model"):
        check_model(own, asked())


def test_room_is_asked_for_where_the_copy_goes(own: Roots, small_tmpfs: Path) -> None:
    roots = Roots(own.datasets, own.artifacts, small_tmpfs / "models", own.cache)
    with pytest.raises(DiskFull, match=r"small: needs 0\.8\d GiB.*\n.*installed q4_k_m") as told:
        check_model(roots, asked(10**9))
    assert f"at {small_tmpfs}" in told.value.remedy
    assert str(own.artifacts) not in told.value.message
    check_model(roots, asked(10**9, install={"enabled": False}))


def test_the_description_is_of_the_artifacts(own: Roots) -> None:
    request = asked()
    request.description = "../elsewhere"
    with pytest.raises(InvalidInput, match="leaves"):
        check_model(own, request)


def test_a_llama_cpp_that_is_not_there_is_named(own: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUTOFF_LLAMA_CPP_PATHS", "/")
    with pytest.raises(NotFound, match=r"llama\.cpp not found at: /nowhere"):
        check_model(own, asked(convert={"llama_cpp_path": "/nowhere"}))


def test_the_coordinator_hears_of_it_over_the_wire(own: Roots, llama: LlamaCpp, tmp_path: Path) -> None:
    """The servicer and the coordinator's call, between them a socket: answers and errors come through."""
    servicer = GgufConverterServicer(None, own)  # type: ignore[arg-type]  # nothing is run

    def register(server: grpc.aio.Server) -> list[str]:
        gguf_converter_pb2_grpc.add_GgufConverterServiceServicer_to_server(servicer, server)
        return []

    async def ask() -> None:
        async with started(f"unix:{tmp_path}/socket", register, ServerSecurity.from_environment(), 0) as address:
            await stage_services.check_model(address, asked())
            with pytest.raises(DiskFull, match="lacks"):
                await stage_services.check_model(address, asked(10**15))

    asyncio.run(ask())
