import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
from sentencepiece import sentencepiece_model_pb2

from cutoff.artifacts import Roots
from cutoff.artifacts import disk as disk_module
from cutoff.errors import CheckFailed, DiskFull, InvalidInput, NotFound, Refused
from cutoff.gguf_converter import work
from cutoff.gguf_converter.convert import convert_model
from cutoff.gguf_converter.gguf_file import read_gguf
from cutoff.gguf_converter.quant_types import QUANTIZATIONS, file_name, size_at_most
from cutoff.gguf_converter.weights import count_parameters
from cutoff.llama_cpp import LlamaCpp
from cutoff.spec.quant_types import QuantType
from cutoff.stage.context import RunContext
from cutoff.stage.report import Reporter, silent
from cutoff.v1 import gguf_converter_pb2, job_pb2, types_pb2

ALL: tuple[QuantType, ...] = get_args(QuantType)


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "artifacts/merged"))


def edit_json(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in {**content, **changes}.items() if value is not None}))


def outputs(folder: Path, *types: QuantType) -> Mapping[QuantType, Path]:
    return {quant_type: folder / file_name("tiny", quant_type) for quant_type in types}


def test_the_documents_seven_types_are_all_there() -> None:
    assert tuple(QUANTIZATIONS) == ALL == ("f16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_k_s", "q3_k_m")
    assert QUANTIZATIONS["q4_k_m"].quality == "Recommended"


def test_every_type_comes_out_of_one_16_bit_pass(llama: LlamaCpp, model: Path, tmp_path: Path) -> None:
    events: list[types_pb2.Event] = []
    folder = tmp_path / "out"
    converted = convert_model(model, outputs(folder, *ALL), "tiny", llama, Reporter(events.append))
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        f"tiny-{name}.gguf" for name in ("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_K_S", "Q3_K_M")
    )
    sizes = [converted.files[quant_type].size_bytes for quant_type in ALL]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(sizes)
    assert all(read_gguf(file.path).tensors == 11 for file in converted.files.values())
    assert all(file.size_bytes <= size_at_most(converted.parameters, name) for name, file in converted.files.items())
    phases = {event.progress.phase for event in events}
    assert phases >= {"converting to f16", "quantizing to q3_k_m"}
    published = {event.artifact.labels["quant_type"] for event in events if event.artifact.path}
    assert published == set(ALL)


def test_weights_are_counted_from_headers(tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    expected = sum(weight.numel() for weight in AutoModelForCausalLM.from_pretrained(tiny_model).parameters())
    assert count_parameters(tiny_model) == expected


def test_special_tokens_that_llama_cpp_reads_as_text_stop_the_conversion(
    llama: LlamaCpp, model: Path, tmp_path: Path
) -> None:
    """What transformers 5 makes of tokens added to a SentencePiece vocabulary: they are special in tokenizer.json only.

    Such a model answers everything in transformers, and nothing in LM Studio.
    """
    pieces = sentencepiece_model_pb2.ModelProto.FromString((model / "tokenizer.model").read_bytes())
    for piece in pieces.pieces:
        if piece.piece.startswith("<|im_"):
            piece.type, piece.score = pieces.SentencePiece.NORMAL, -1e9
    (model / "tokenizer.model").write_bytes(pieces.SerializeToString())
    edit_json(model / "tokenizer_config.json", added_tokens_decoder=None, additional_special_tokens=None)
    with pytest.raises(CheckFailed, match="reads a prompt differently") as caught:
        convert_model(model, outputs(tmp_path / "out", "q4_k_m"), "tiny", llama, silent())
    assert "added_tokens_decoder" in caught.value.remedy
    assert "<|im_start|>" in caught.value.message
    assert list((tmp_path / "out").iterdir()) == []


def test_an_interrupted_conversion_leaves_nothing(llama: LlamaCpp, model: Path, tmp_path: Path) -> None:
    def sink(event: types_pb2.Event) -> None:
        if event.progress.phase == "quantizing to q4_k_m":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_model(model, outputs(tmp_path / "out", "f16", "q4_k_m"), "tiny", llama, Reporter(sink))
    assert list((tmp_path / "out").iterdir()) == []


def test_a_disk_that_will_not_hold_all_files_is_refused_before_work_starts(
    llama: LlamaCpp, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 70 << 20})  # room for the 16-bit file and one more, not for three
    monkeypatch.setattr(disk_module.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DiskFull, match="converting merged to q8_0, q4_k_m"):
        convert_model(model, outputs(tmp_path / "out", "q8_0", "q4_k_m"), "tiny", llama, silent())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["cut", "no config", "no weights", "no tokenizer", "missing"])
def test_a_model_folder_that_is_not_whole_is_refused(llama: LlamaCpp, model: Path, damage: str) -> None:
    weights = model / "model.safetensors"
    match damage:
        case "cut":
            weights.write_bytes(weights.read_bytes()[:-1000])
        case "no config":
            (model / "config.json").unlink()
        case "no weights":
            weights.unlink()
        case "no tokenizer":
            for path in [*model.glob("tokenizer*"), *model.glob("*.jinja")]:
                path.unlink()
        case _:
            shutil.rmtree(model)
    with pytest.raises((InvalidInput, NotFound), match="merged"):
        convert_model(model, outputs(model.parent / "out", "f16"), "tiny", llama, silent())
    assert not (model.parent / "out").exists()


def test_an_adapter_is_no_model(llama: LlamaCpp, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(Refused, match="LoRA adapter") as caught:
        convert_model(tmp_path, outputs(tmp_path / "out", "f16"), "tiny", llama, silent())
    assert "merge" in caught.value.remedy


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "a/b", "..", ".x"])
def test_a_request_names_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(work, "convert_model", lambda *_, **__: pytest.fail("it must not begin"))
    roots = Roots(tmp_path, tmp_path, tmp_path / "models", tmp_path)
    run = RunContext(types_pb2.RunKey(job="j", stage="convert", attempt=1), tmp_path, roots, (), silent())
    with pytest.raises(InvalidInput, match="plain name"):
        work.convert(gguf_converter_pb2.ConvertRequest(merged="merged", model_name=name), run)
    install = gguf_converter_pb2.InstallRequest(spec=job_pb2.InstallSpec(model_name=name), quant_type="q4_k_m")
    with pytest.raises(InvalidInput, match="plain name"):
        work.install(install, run)


def test_a_requests_own_llama_cpp_is_not_executed_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUTOFF_LLAMA_CPP_PATHS", raising=False)
    monkeypatch.setattr(work, "convert_model", lambda *_, **__: pytest.fail("it must not begin"))
    roots = Roots(tmp_path, tmp_path, tmp_path / "models", tmp_path)
    run = RunContext(types_pb2.RunKey(job="j", stage="convert", attempt=1), tmp_path, roots, (), silent())
    spec = job_pb2.ConvertSpec(quant_types=["f16"], llama_cpp_path="/tmp")
    with pytest.raises(Refused, match="may not execute"):
        work.convert(gguf_converter_pb2.ConvertRequest(merged="merged", model_name="x", spec=spec), run)


def test_the_services_runs_convert_and_install(llama: LlamaCpp, model: Path, tmp_path: Path) -> None:
    events: list[types_pb2.Event] = []
    artifacts = tmp_path / "artifacts"
    roots = Roots(tmp_path, artifacts, tmp_path / "models", Roots.from_environment().cache)

    def run(stage: str) -> RunContext:
        folder = artifacts / "jobs/j" / stage / "1"
        folder.mkdir(parents=True)
        return RunContext(types_pb2.RunKey(job="j", stage=stage, attempt=1), folder, roots, (), Reporter(events.append))

    asked = gguf_converter_pb2.ConvertRequest(
        merged="merged", model_name="tiny", spec=job_pb2.ConvertSpec(quant_types=["q4_k_m"]), probe_questions=["Who?"]
    )
    result = work.convert(asked, run("convert"))
    (file,) = result["files"]
    assert file["path"] == "jobs/j/convert/1/tiny-Q4_K_M.gguf"
    assert file["size_bytes"] == (artifacts / file["path"]).stat().st_size

    request = gguf_converter_pb2.InstallRequest(
        spec=job_pb2.InstallSpec(model_name="tiny"), gguf=file["path"], sha256=file["sha256"], quant_type="q4_k_m"
    )
    installed = work.install(request, run("install"))
    assert installed["path"] == str(tmp_path / "models/local/tiny/tiny-Q4_K_M.gguf")
    assert (installed["sha256"], installed["changed"]) == (file["sha256"], True)
    assert [event.artifact.kind for event in events if event.artifact.path] == ["gguf", "installed"]
    json.dumps([result, installed])  # what Finished carries
