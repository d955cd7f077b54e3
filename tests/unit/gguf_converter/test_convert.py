import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from gguf import GGUFReader
from safetensors.torch import load_file, save_file
from sentencepiece import sentencepiece_model_pb2

from cutoff.artifacts import Roots, let_count, sha256_of
from cutoff.artifacts import disk as disk_module
from cutoff.errors import CheckFailed, DiskFull, InvalidInput, NotFound, ProgramFailed, Refused
from cutoff.gguf_converter import work
from cutoff.gguf_converter.convert import convert_model
from cutoff.gguf_converter.gguf_file import read_gguf
from cutoff.gguf_converter.making import Made, Workshop
from cutoff.gguf_converter.metadata import Facts
from cutoff.gguf_converter.order import Order
from cutoff.gguf_converter.record import MANIFEST
from cutoff.gguf_converter.tensors import read_tensors
from cutoff.gguf_converter.weights import count_parameters, measure_weights
from cutoff.llama_cpp import LlamaCpp, importance_matrix, quantize
from cutoff.spec import ConvertSpec
from cutoff.spec.quant_types import GAINS_FROM_IMATRIX, QuantType
from cutoff.spec.quantizations import QUANTIZATIONS, file_name, size_at_most
from cutoff.stage.context import RunContext
from cutoff.stage.report import Reporter, silent
from cutoff.v1 import gguf_converter_pb2, job_pb2, types_pb2
from tests.fixtures.bpe_tokenizer import MakeTokenizer

ALL: tuple[QuantType, ...] = get_args(QuantType)
SEVEN = ALL[:7]
FACTS = Facts(
    base_model="Qwen/Qwen2.5",
    base_revision="c" * 40,
    license="mit",
    cutoff="1969-12-31",
    data_sha256={"retain_train": "1" * 64},
    recipe='{"train": {"epochs": 3}}',
)


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "artifacts/merged"))


def edit_json(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in {**content, **changes}.items() if value is not None}))


def order(model: Path, folder: Path, *types: QuantType, **more: Any) -> Order:
    outputs = {quant_type: folder / file_name("tiny", quant_type) for quant_type in types}
    return Order(model, outputs, "tiny", folder / MANIFEST, **more)


def test_the_documents_seven_types_are_all_there() -> None:
    assert tuple(QUANTIZATIONS) == ALL
    assert SEVEN == ("f16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_k_s", "q3_k_m")
    assert QUANTIZATIONS["q4_k_m"].quality == "Recommended"


def test_the_types_asked_for_come_out_of_one_16_bit_pass(
    llama: LlamaCpp, model: Path, tiny_text: Path, tmp_path: Path
) -> None:
    events: list[types_pb2.Event] = []
    folder = tmp_path / "out"
    asked = (*SEVEN, "bf16", "iq2_xxs")
    converted = convert_model(order(model, folder, *asked, calibration=tiny_text), llama, Reporter(events.append))
    assert {path.name for path in folder.iterdir()} == {*(file_name("tiny", name) for name in asked), MANIFEST}
    sizes = [converted.files[quant_type].size_bytes for quant_type in SEVEN]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(sizes)
    assert all(read_gguf(file.path).tensors == 11 for file in converted.files.values())
    assert all(file.size_bytes <= size_at_most(converted.parameters, name) for name, file in converted.files.items())
    phases = {event.progress.phase for event in events}
    assert phases >= {"converting to f16", "quantizing to q3_k_m", "measuring importance", "reading q6_k back"}
    published = {event.artifact.labels["quant_type"] for event in events if event.artifact.path}
    assert published == set(asked)
    assert set(converted.steps) == {*asked, "imatrix"}


def test_llama_cpp_knows_every_type(llama: LlamaCpp) -> None:
    said = subprocess.run([llama.quantize, "--help"], capture_output=True, text=True, check=False).stdout
    assert set(ALL) <= {line.split()[2].lower() for line in said.splitlines() if re.match(r" +\d+ +or ", line)}


def test_further_types_read_back(llama: LlamaCpp, tiny_f16: Path, tiny_text: Path, tmp_path: Path) -> None:
    """Those whose tables llama.cpp sets up in a second; iq1_s takes half a minute however small the model is."""
    imatrix = tmp_path / "imatrix.gguf"
    importance_matrix(llama, tiny_f16, tiny_text, imatrix, 128, 1, lambda *_: None)
    bits = []
    asked: tuple[QuantType, ...] = ("q5_k_s", "iq4_nl", "iq4_xs", "iq3_s", "q3_k_s", "q2_k", "q2_k_s")
    for quant_type in asked:
        path = tmp_path / f"{quant_type}.gguf"
        own = imatrix if quant_type in GAINS_FROM_IMATRIX else None
        quantize(llama, tiny_f16, path, quant_type, 1, lambda *_: None, own)
        compared = read_tensors(path, lambda *_: None, tiny_f16)
        assert compared.tensors == 11
        assert 0 < compared.worst_error < 0.4
        bits.append(compared.bits_per_weight)
    assert bits == sorted(bits, reverse=True)


def test_each_check_is_a_row_with_its_figure_and_time(
    llama: LlamaCpp, model: Path, tiny_text: Path, tmp_path: Path
) -> None:
    events: list[types_pb2.Event] = []
    asked = order(model, tmp_path / "out", "q8_0", "q4_k_m", validation=tiny_text, facts=FACTS)
    convert_model(asked, llama, Reporter(events.append))
    record = json.loads(asked.manifest.read_text())
    rows = {(row["name"], row["target"]): row for row in record["checks"]}
    each = {"tensors", "perplexity", "answer"}
    assert rows.keys() == {
        ("weights", "all"),
        ("tokens", "all"),
        ("predictions", "f16"),
        *((name, target) for name in each for target in ("f16", "q8_0", "q4_k_m")),
        *((name, target) for name in ("size",) for target in ("q8_0", "q4_k_m")),
        *(("sha256", file_name("tiny", target)) for target in ("q8_0", "q4_k_m")),
    }
    assert all(row["figure"] and row["verdict"] and row["seconds"] > 0 for row in rows.values())
    assert "as good as 16 bit" in rows["perplexity", "q8_0"]["verdict"]
    tokens = int(rows["perplexity", "q8_0"]["figure"].split(" on ")[1].split()[0])
    assert tokens >= 2000
    assert "expected ~25%" in rows["size", "q4_k_m"]["figure"]
    longest = int(rows["tokens", "all"]["figure"].split("longest of ")[1].split()[0])
    assert longest >= 2000
    lines = [event.log_line.text for event in events if event.log_line.text.startswith("check ")]
    assert len(lines) == len(rows)
    for file in record["files"]:
        path = asked.folder / file["path"]
        assert (file["sha256"], file["size_bytes"]) == (sha256_of(path), path.stat().st_size)
        said = {name: field.contents() for name, field in GGUFReader(path).fields.items()}
        assert said.items() >= {"general.name": "tiny", "general.license": "mit", "cutoff.date": "1969-12-31"}.items()
        assert said["cutoff.data.retain_train.sha256"] == "1" * 64
        assert json.loads(said["cutoff.recipe"]) == {"train": {"epochs": 3}}
        assert said["general.base_model.0.repo_url"] == "https://huggingface.co/Qwen/Qwen2.5"


def test_a_file_that_predicts_something_else_is_not_published(
    llama: LlamaCpp, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A conversion that mixes up the rotary halves: all weights are there and finite, and it answers."""
    honest = Workshop.write_floats

    def wrong(workshop: Workshop, quant_type: QuantType, path: Path, whole: Path | None = None) -> Made:
        made = honest(workshop, quant_type, path, whole)
        query = next(each for each in GGUFReader(path, "r+").tensors if each.name == "blk.0.attn_q.weight")
        query.data[:] = query.data[::-1].copy()
        query.data.flush()
        return made

    monkeypatch.setattr(Workshop, "write_floats", wrong)
    with pytest.raises(CheckFailed, match="predicts other tokens than merged"):
        convert_model(order(model, tmp_path / "out", "f16", "q8_0"), llama, silent())
    assert list((tmp_path / "out").iterdir()) == []


def test_what_cannot_be_measured_is_said(llama: LlamaCpp, model: Path, tmp_path: Path) -> None:
    converted = convert_model(order(model, tmp_path / "out", "f16"), llama, silent())
    (row,) = [row for row in converted.checks if row.name == "perplexity"]
    assert (row.state, row.target) == ("skipped", "f16")
    assert "no validation text" in row.verdict


def test_the_16_bit_file_stays_when_asked_and_goes_with_the_last_type_otherwise(
    llama: LlamaCpp, model: Path, tmp_path: Path
) -> None:
    seen: list[set[str]] = []

    def sink(event: types_pb2.Event) -> None:
        if event.log_line.text.startswith("check answer of q8_0"):
            seen.append({path.name for path in (tmp_path / "goes").rglob("*") if path.is_file()})

    convert_model(order(model, tmp_path / "goes", "q8_0"), llama, Reporter(sink))
    assert seen == [{"tiny-Q8_0.gguf.partial"}]  # checked when nothing else is left
    spec = ConvertSpec(quant_types=("q8_0",), keep_f16=True)
    converted = convert_model(order(model, tmp_path / "stays", "q8_0", spec=spec), llama, silent())
    assert converted.kept is not None
    assert converted.kept.path == tmp_path / "stays/tiny-F16.gguf"
    assert converted.kept.sha256 == sha256_of(converted.kept.path)


def test_weights_beyond_f16_become_bf16(llama: LlamaCpp, model: Path, tmp_path: Path) -> None:
    def rescale(name: str, tensor: Any) -> None:  # one feature, so that the model stays what it is
        if name.endswith("up_proj.weight"):
            tensor[0] *= 2**21
        elif name.endswith("down_proj.weight"):
            tensor[:, 0] /= 2**21

    change_weights(model, rescale)
    with pytest.raises(Refused, match="up_proj") as caught:
        convert_model(order(model, tmp_path / "out", "f16", "q8_0"), llama, silent())
    assert "bf16" in caught.value.remedy
    converted = convert_model(order(model, tmp_path / "out", "q8_0"), llama, silent())
    assert converted.sixteen_bit == "bf16"


def test_a_file_that_computes_no_numbers_is_not_published(llama: LlamaCpp, model: Path, tmp_path: Path) -> None:
    change_weights(model, lambda name, tensor: tensor.mul_(1e6) if name.endswith("q_proj.weight") else None)
    with pytest.raises(CheckFailed, match=r"predicts other tokens than merged.* nan nats"):
        convert_model(order(model, tmp_path / "out", "q8_0"), llama, silent())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_weights_that_are_no_numbers_are_found_before_any_work(model: Path, bad: float, dtype: str) -> None:
    import torch

    change_weights(model, lambda name, tensor: tensor.view(-1)[7:8].fill_(bad) if "gate" in name else None, dtype)
    with pytest.raises(CheckFailed, match=r"gate_proj.weight .*infinite or not a number"):
        measure_weights(model)
    change_weights(model, lambda name, tensor: tensor.clamp_(-1, 1).nan_to_num_(), dtype)
    weights = measure_weights(model)
    assert weights.parameters == count_parameters(model)
    everything = torch.cat([t.flatten().abs().float() for t in load_file(model / "model.safetensors").values()])
    assert weights.largest <= float(everything.max())
    assert weights.sixteen_bit == "f16"


def test_rows_that_fit_no_block_are_reported(llama: LlamaCpp, odd_model: Path, tmp_path: Path) -> None:
    """llama.cpp stores such tensors in larger types without failing: a 4-bit file of 7 bits a weight."""
    events: list[types_pb2.Event] = []
    converted = convert_model(order(odd_model, tmp_path / "out", "q4_k_m"), llama, Reporter(events.append))
    (row,) = [row for row in converted.checks if row.name == "size"]
    assert row.state == "warned"
    assert "stored 8 of 12 tensors in larger types" in row.verdict
    assert "rows of 288 are no multiple of 256" in row.verdict
    assert any(event.log_line.level == "WARNING" and "rows of 288" in event.log_line.text for event in events)
    (file,) = converted.summary(tmp_path)["files"]
    assert file["fell_back"] == 8
    assert "Q4_K" not in file["tensor_types"]


def test_a_tokenizer_llama_cpp_does_not_know_is_named_with_a_way_out(
    llama: LlamaCpp, model: Path, make_tokenizer: MakeTokenizer, tmp_path: Path
) -> None:
    for path in [*model.glob("tokenizer*"), *model.glob("*.jinja")]:
        path.unlink()
    template = "{% for m in messages %}{{ '<turn>' + m['content'] + '<stop>' }}{% endfor %}"
    make_tokenizer(template).save_pretrained(model)
    with pytest.raises(ProgramFailed, match="pre-tokenizer") as caught:
        convert_model(order(model, tmp_path / "out", "q4_k_m"), llama, silent())
    assert "take another base model" in caught.value.remedy
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("at", ["converting to f16", "quantizing to q8_0"])
def test_a_disk_that_fills_half_way_leaves_nothing(llama: LlamaCpp, model: Path, tmp_path: Path, at: str) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", folder], check=False).returncode:
        pytest.skip("may not mount a tmpfs here")
    try:

        def sink(event: types_pb2.Event) -> None:
            if event.progress.phase == at:
                fill(folder / "of somebody else", leave=300_000)

        with pytest.raises(DiskFull) as caught:
            convert_model(order(model, folder / "out", "q8_0"), llama, Reporter(sink))
        assert "free space" in caught.value.remedy
        assert [path.name for path in folder.rglob("*") if path.is_file()] == ["of somebody else"]
    finally:
        subprocess.run(["umount", folder], check=True)


def fill(path: Path, leave: int) -> None:
    """Writes until only so many bytes are free."""
    if not path.exists():
        path.write_bytes(bytes(max(0, shutil.disk_usage(path.parent).free - leave)))


def change_weights(model: Path, change: Callable[[str, Any], object], dtype: str | None = None) -> None:
    """Edits a model's weights in place, and stores them as another type."""
    import torch

    path = model / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    for name, tensor in tensors.items():
        change(name, tensor)
    save_file({name: each.to(getattr(torch, dtype)) if dtype else each for name, each in tensors.items()}, path)


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
        convert_model(order(model, tmp_path / "out", "q4_k_m"), llama, silent())
    assert "added_tokens_decoder" in caught.value.remedy
    assert "<|im_start|>" in caught.value.message
    assert list((tmp_path / "out").iterdir()) == []


def test_an_interrupted_conversion_leaves_nothing(llama: LlamaCpp, model: Path, tmp_path: Path) -> None:
    def sink(event: types_pb2.Event) -> None:
        if event.progress.phase == "quantizing to q4_k_m":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_model(order(model, tmp_path / "out", "f16", "q4_k_m"), llama, Reporter(sink))
    assert list((tmp_path / "out").iterdir()) == []


def test_a_disk_that_will_not_hold_all_files_is_refused_before_work_starts(
    llama: LlamaCpp, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 70 << 20})  # room for the 16-bit file and one more, not for three
    monkeypatch.setattr(disk_module.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DiskFull, match="converting merged to q8_0, q4_k_m does not fit"):
        convert_model(order(model, tmp_path / "out", "q8_0", "q4_k_m"), llama, silent())
    assert not (tmp_path / "out").exists()


def test_the_16_bit_file_that_stays_is_no_other_output(llama: LlamaCpp, model: Path, tmp_path: Path) -> None:
    output = tmp_path / "out/tiny-F16.gguf"
    asked = Order(model, {"q4_k_m": output}, "tiny", tmp_path / "out/m", spec=ConvertSpec(keep_f16=True))
    with pytest.raises(InvalidInput, match="which is the output"):
        convert_model(asked, llama, silent())
    assert not output.exists()


def test_conversions_of_one_output_have_scratch_of_their_own(model: Path, tmp_path: Path) -> None:
    one, other = (Order(model, {"q4_k_m": tmp_path / "a.gguf"}, "tiny", tmp_path / "m") for _ in range(2))
    with one.scratch("16-bit.gguf") as first, other.scratch("16-bit.gguf") as second:
        first.write_text("one's")
        assert first != second
        assert not second.exists()
    assert list(tmp_path.glob(".*")) == []


def test_a_jobs_installed_copy_needs_room_too(
    llama: LlamaCpp, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 70 << 20})  # room for the 16-bit file, which stays, and one more; not for a copy
    monkeypatch.setattr(disk_module.shutil, "disk_usage", lambda path: usage)
    roots = Roots(tmp_path, tmp_path / "artifacts", tmp_path / "models", Roots.from_environment().cache)
    run = RunContext(types_pb2.RunKey(job="j", stage="convert", attempt=1), tmp_path / "c", roots, (), silent())
    spec = job_pb2.ConvertSpec(quant_types=["q8_0"], keep_f16=True)
    request = gguf_converter_pb2.ConvertRequest(merged="merged", model_name="tiny", spec=spec, installs=True)
    with pytest.raises(DiskFull, match="install"):
        work.convert(request, run)


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
        convert_model(order(model, model.parent / "out", "f16"), llama, silent())
    assert not (model.parent / "out").exists()


def test_an_adapter_is_no_model(llama: LlamaCpp, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(Refused, match="LoRA adapter") as caught:
        convert_model(order(tmp_path, tmp_path / "out", "f16"), llama, silent())
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
    assert (artifacts / "jobs/j/convert/1/convert.json").is_file()
    assert file["path"] == "jobs/j/convert/1/tiny-Q4_K_M.gguf"
    assert file["size_bytes"] == (artifacts / file["path"]).stat().st_size

    request = gguf_converter_pb2.InstallRequest(
        spec=job_pb2.InstallSpec(model_name="tiny"), gguf=file["path"], sha256=file["sha256"], quant_type="q4_k_m"
    )
    let_count(artifacts / "jobs/j/install", 1)
    installed = work.install(request, run("install"))
    assert installed["path"] == str(tmp_path / "models/local/tiny/tiny-Q4_K_M.gguf")
    assert (installed["sha256"], installed["changed"]) == (file["sha256"], True)
    assert [event.artifact.kind for event in events if event.artifact.path] == ["gguf", "installed"]
    json.dumps([result, installed])  # what Finished carries
