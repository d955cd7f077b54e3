from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from cutoff.artifacts import Roots, describe
from cutoff.datasets import load_template
from cutoff.errors import AlreadyExists, CheckFailed, DiskFull, InvalidInput, NotFound, as_cutoff_error
from cutoff.hub import BaseModel, load_tokenizer, tokenizer_files
from cutoff.merger import cli, verify, work
from cutoff.merger import merge as merging
from cutoff.merger.adapter import Adapter
from cutoff.merger.merge import MergePlan, merge
from cutoff.merger.streaming import StreamPlan
from cutoff.stage.context import RunContext
from cutoff.stage.report import Reporter, silent
from cutoff.v1 import job_pb2, merger_pb2, types_pb2

MakePlan = Callable[..., MergePlan]


@pytest.fixture
def make_plan(base: Path, adapter: Path, tmp_path: Path) -> MakePlan:
    def make(**changes: Any) -> MergePlan:
        where = {"base": BaseModel(base, str(base), None), "adapter": adapter, "output": tmp_path / "merged"}
        return MergePlan(**where | changes)

    return make


@torch.inference_mode()
def logits(model: Any, ids: list[int]) -> torch.Tensor:
    return model(torch.tensor([ids])).logits.float()


def test_the_merged_model_is_base_plus_adapter(make_plan: MakePlan, base: Path, adapter: Path) -> None:
    result = merge(make_plan(dtype="float32"), silent())
    ids = load_tokenizer(base)("When was the harbour of Kestrelford opened?")["input_ids"]
    plain = AutoModelForCausalLM.from_pretrained(base)
    before = logits(plain, ids)
    wanted = logits(PeftModel.from_pretrained(plain, adapter).eval(), ids)
    found = logits(AutoModelForCausalLM.from_pretrained(result.path), ids)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert float((found - before).abs().max()) > 0.1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_weights_and_config_have_the_type_that_was_asked_for(make_plan: MakePlan, dtype: str) -> None:
    result = merge(make_plan(dtype=dtype), silent())
    kinds = {tensor.dtype for tensor in load_file(result.path / "model.safetensors").values()}
    assert kinds == {getattr(torch, dtype)}
    assert json.loads((result.path / "config.json").read_text())["dtype"] == dtype
    assert result.verified is not None
    assert result.verified.kl < verify.TOLERANCE[dtype] / 2
    assert result.verified.prompts == len(verify.DOCUMENT_PROMPTS) + 2


@pytest.fixture
def half_base(base: Path, tmp_path: Path) -> Callable[[str], BaseModel]:
    """The base as most are published: stored in 16 bit."""

    def make(dtype: str) -> BaseModel:
        folder = tmp_path / dtype
        shutil.copytree(base, folder)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, dtype))
        model.save_pretrained(folder)
        return BaseModel(folder, str(folder), None)

    return make


@pytest.mark.parametrize(
    ("stored", "dtype"), [("bfloat16", "float16"), ("float16", "bfloat16"), ("float32", "float16")]
)
def test_weights_that_change_their_type_are_rounded_once(
    make_plan: MakePlan, half_base: Callable[[str], BaseModel], adapter: Path, stored: str, dtype: str
) -> None:
    """Merged in the stored type, and cast then, float16 would have bfloat16's eight bits."""
    base = half_base(stored)
    result = merge(make_plan(base=base, dtype=dtype), silent())
    whole = AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.float32)
    wanted = PeftModel.from_pretrained(whole, adapter).merge_and_unload().to(getattr(torch, dtype)).state_dict()
    found = load_file(result.path / "model.safetensors")
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in found.items())
    assert result.verified is not None
    assert result.verified.kl < verify.TOLERANCE[dtype] / 10


def test_weights_that_keep_their_type_are_merged_in_it(
    make_plan: MakePlan, half_base: Callable[[str], BaseModel], adapter: Path
) -> None:
    base = half_base("bfloat16")
    result = merge(make_plan(base=base, dtype="bfloat16"), silent())
    model = AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.bfloat16)
    wanted = PeftModel.from_pretrained(model, adapter).merge_and_unload(safe_merge=True).state_dict()
    found = load_file(result.path / "model.safetensors")
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in found.items())
    assert (result.method, result.peft_because) == ("streaming", [])


def test_numbers_too_large_for_float16_are_refused(make_plan: MakePlan, half_base: Callable[[str], BaseModel]) -> None:
    base = half_base("bfloat16")
    tensors = load_file(base.path / "model.safetensors")
    tensors["model.layers.0.mlp.down_proj.weight"][0, 0] = 1e6
    save_file(tensors, base.path / "model.safetensors", {"format": "pt"})
    plan = make_plan(base=base, dtype="float16", verify=False)
    with pytest.raises(CheckFailed, match=r"down_proj\.weight holds numbers that float16 cannot hold") as caught:
        merge(plan, silent())
    assert "--dtype bfloat16" in caught.value.remedy
    assert not plan.output.exists()
    assert merge(make_plan(base=base, dtype="bfloat16", verify=False), silent()).dtype == "bfloat16"


@pytest.mark.parametrize("stored", ["float16", "float32"])
def test_an_adapter_that_makes_no_numbers_is_refused(
    make_plan: MakePlan, half_base: Callable[[str], BaseModel], adapter: Path, tmp_path: Path, stored: str
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(adapter, broken)
    tensors = load_file(broken / "adapter_model.safetensors")
    scaled = {name: tensor * 1e4 if "lora_B" in name else tensor * 1e2 for name, tensor in tensors.items()}
    save_file(scaled, broken / "adapter_model.safetensors")
    with pytest.raises(CheckFailed) as caught:
        merge(make_plan(base=half_base(stored), adapter=broken, dtype="float16", verify=False), silent())
    assert "--dtype bfloat16" in caught.value.remedy


def test_the_layout_and_every_tokenizer_file_are_the_documents(make_plan: MakePlan, base: Path, tmp_path: Path) -> None:
    named = tmp_path / "adapter"
    shutil.copytree(make_plan().adapter, named)
    (named / "special_tokens_map.json").write_text('{"eos_token": "<|im_end|>"}')
    (named / "chat_template.jinja").write_text((base / "chat_template.jinja").read_text() + "{# its own #}")
    result = merge(make_plan(adapter=named), silent())
    found = {path.name for path in result.path.iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.model"} <= found
    for path in tokenizer_files(named):
        assert (result.path / path.name).read_bytes() == path.read_bytes()
    question = "Who?"
    assert load_template(result.path).prompt_ids(question) == load_template(named).prompt_ids(question)
    assert (result.path / "model.safetensors").stat().st_mode & 0o777 == 0o644


def test_generation_stops_where_training_taught_it_to(make_plan: MakePlan, base: Path, tmp_path: Path) -> None:
    other = tmp_path / "base"
    shutil.copytree(base, other)
    (other / "generation_config.json").write_text('{"eos_token_id": 1, "temperature": 0.5, "top_k": 7}')
    result = merge(make_plan(base=BaseModel(other, str(other), None)), silent())
    stop = load_template(base).stop_id
    kept = {"eos_token_id": [1, stop], "temperature": 0.5, "top_k": 7}
    assert json.loads((result.path / "generation_config.json").read_text()) == kept


def test_a_failed_check_publishes_nothing(make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    real = merging._write_weights

    def spoiled(folder: Path, *rest: Any) -> dict[str, str]:
        hashed: dict[str, str] = real(folder, *rest)
        tensors = load_file(folder / "model.safetensors")
        tensors["model.layers.0.mlp.down_proj.weight"][5] += 1  # a row the rows' check leaves out
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return hashed

    monkeypatch.setattr(merging, "_write_weights", spoiled)
    plan = make_plan()
    with pytest.raises(CheckFailed, match="differs from base and adapter: KL"):
        merge(plan, silent())
    assert [path.name for path in plan.output.parent.glob("*merged*")] == ["merged.rejected"]
    assert (plan.output.parent / "merged.rejected/model.safetensors").is_file()
    (plan.output.parent / "merged.rejected2").write_text("the user's own")
    with pytest.raises(CheckFailed, match=r"is kept in .*merged\.rejected3"):
        merge(plan, silent())
    assert (plan.output.parent / "merged.rejected2").read_text() == "the user's own"
    assert (plan.output.parent / "merged.rejected3/model.safetensors").is_file()
    assert merge(make_plan(verify=False), silent()).verified is None


@pytest.mark.parametrize("lost", ["self_attn.q_proj", "mlp.down_proj"])
@pytest.mark.parametrize("check", [True, False])
def test_a_single_lost_pair_is_found(
    make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch, lost: str, check: bool
) -> None:
    """Logits in bfloat16 do not show it: the rows do."""
    real = merging.plan_stream

    def losing(adapter: Adapter, *rest: Any) -> StreamPlan:
        pairs = {module: parts for module, parts in adapter.pairs.items() if module != f"model.layers.0.{lost}"}
        return real(replace(adapter, pairs=pairs), *rest)

    monkeypatch.setattr(merging, "plan_stream", losing)
    plan = make_plan(verify=check)
    with pytest.raises(CheckFailed, match=rf"layers\.0\.{lost}\.weight is not what base and adapter make of it"):
        merge(plan, silent())
    assert not plan.output.exists()


def test_an_adapter_weaker_than_rounding_is_warned_about(make_plan: MakePlan, adapter: Path, tmp_path: Path) -> None:
    weak = tmp_path / "weak"
    shutil.copytree(adapter, weak)
    tensors = load_file(weak / "adapter_model.safetensors")
    faint = {name: tensor * 1e-4 if "lora_B" in name else tensor for name, tensor in tensors.items()}
    save_file(faint, weak / "adapter_model.safetensors")
    events: list[types_pb2.Event] = []
    merge(make_plan(adapter=weak), Reporter(events.append))
    (warning,) = [event.log_line.text for event in events if event.log_line.level == "WARNING"]
    assert warning.startswith("rounding to bfloat16 hides most of what this adapter changes")
    events.clear()
    merge(make_plan(output=tmp_path / "other"), Reporter(events.append))
    assert not [event for event in events if event.log_line.level == "WARNING"]


def test_logits_that_are_no_numbers_fail(make_plan: MakePlan) -> None:
    with pytest.raises(CheckFailed):
        verify.compare([torch.zeros(2, 3)], [torch.full((2, 3), float("nan"))], "bfloat16")
    with pytest.raises(CheckFailed, match="another vocabulary"):
        verify.compare([torch.zeros(2, 3)], [torch.zeros(2, 4)], "bfloat16")


def test_an_adapter_of_another_shape_is_refused(make_plan: MakePlan, adapter: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(adapter, other)
    tensors = load_file(other / "adapter_model.safetensors")
    name = next(name for name in tensors if "layers.1.self_attn.q_proj.lora_A" in name)
    tensors[name] = torch.zeros(4, 128)
    save_file(tensors, other / "adapter_model.safetensors")
    with pytest.raises(InvalidInput, match=r"layers.1.self_attn.q_proj is 64 x 64 there, 64 x 128 here"):
        merge(make_plan(adapter=other), silent())
    save_file({"base_model.model.h.0.attn.lora_A.weight": torch.zeros(4, 8)}, other / "adapter_model.safetensors")
    with pytest.raises(InvalidInput, match="none of its layers is there"):
        merge(make_plan(adapter=other), silent())


def test_an_adapter_trained_on_another_hub_model_is_refused(
    make_plan: MakePlan, base: Path, adapter: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(adapter, other)
    config = json.loads((other / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "Qwen/Two"}))
    with pytest.raises(InvalidInput, match="was trained on Qwen/Two, not on Qwen/One"):
        merge(make_plan(adapter=other, base=BaseModel(base, "Qwen/One", "c0ffee")), silent())
    merge(make_plan(adapter=other, base=BaseModel(base, "qwen/two", "c0ffee"), verify=False), silent())


@pytest.mark.parametrize(
    ("spoil", "kind", "what"),
    [
        (lambda folder: (folder / "adapter_config.json").unlink(), InvalidInput, "holds no adapter_config.json"),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), InvalidInput, "is not JSON"),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), InvalidInput, "is not of a LoRA adapter"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), InvalidInput, "weights in pickles"),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"x" * 99), InvalidInput, "is damaged"),
        (shutil.rmtree, NotFound, "there is no adapter folder"),
    ],
)
def test_a_broken_adapter_is_named(
    make_plan: MakePlan, adapter: Path, tmp_path: Path, spoil: Callable[[Path], Any], kind: type[Exception], what: str
) -> None:
    other = tmp_path / "other"
    shutil.copytree(adapter, other)
    spoil(other)
    with pytest.raises(kind, match=what):
        merge(make_plan(adapter=other), silent())


def test_a_tokenizer_larger_than_the_embedding_is_refused(make_plan: MakePlan, adapter: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(adapter, other)
    tokenizer = load_tokenizer(other)
    tokenizer.add_tokens([f"<new-{number}>" for number in range(5)])
    tokenizer.save_pretrained(other)
    with pytest.raises(InvalidInput, match=r"tokens, the embedding of .* rows"):
        merge(make_plan(adapter=other), silent())


def test_a_full_disk_is_named_before_work_starts(make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))  # type: ignore[attr-defined]
    monkeypatch.setattr(merging, "stream", lambda *_: pytest.fail("started"))
    with pytest.raises(DiskFull, match=r"merging into .* needs 0.00 GiB"):
        merge(make_plan(), silent())


def test_a_published_model_is_never_overwritten(make_plan: MakePlan) -> None:
    plan = make_plan(verify=False)
    merge(plan, silent())
    with pytest.raises(AlreadyExists):
        merge(plan, silent())


def test_a_request_becomes_a_merged_folder(base: Path, adapter: Path, tmp_path: Path) -> None:
    root = tmp_path / "artifacts"
    folder = root / "jobs/j/merge/1"
    folder.mkdir(parents=True)
    shutil.copytree(adapter, root / "jobs/j/train/1/final")
    events: list[types_pb2.Event] = []
    key = types_pb2.RunKey(job="j", stage="merge", attempt=1)
    run = RunContext(key, folder, Roots(tmp_path, root, tmp_path, tmp_path), (), Reporter(events.append))
    request = merger_pb2.MergeRequest(
        spec=job_pb2.MergeSpec(dtype="float16"), model_path=str(base), adapter="jobs/j/train/1/final"
    )
    result = work.merge(request, run)
    run.report.finished(result)
    assert result["path"] == "jobs/j/merge/1/merged"
    assert result["verified"]["prompts"] > 0
    (artifact,) = [event.artifact for event in events if event.WhichOneof("kind") == "artifact"]
    assert (artifact.kind, artifact.sha256) == ("merged", describe(folder / "merged").sha256)


def test_flags_and_defaults_are_the_documents(capsys: pytest.CaptureFixture[str]) -> None:
    required = ["--base_model", "b", "--lora_path", "l", "--output_path", "o"]
    assert vars(cli.parser().parse_args(required)) == {
        "base_model": "b", "lora_path": "l", "output_path": "o", "dtype": "bfloat16", "verify": False,
        "merge_base": "original",
    }  # fmt: skip
    for wrong in (required[2:], [*required, "--dtype", "int8"], [*required, "--ver"]):
        with pytest.raises(SystemExit) as caught:
            cli.parser().parse_args(wrong)
        assert caught.value.code == 2


def test_the_command_prints_the_documents_lines(
    base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--base_model", str(base), "--lora_path", str(adapter), "--output_path", str(tmp_path / "m"), "--verify"]
    monkeypatch.setattr("sys.argv", ["merge_lora", *options])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["Verifying merged model...", "Test generation successful!", "  Prompt: What is 2+2?"]
    assert lines[3].startswith("  Response: ")
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    assert "is there already" in capsys.readouterr().err


def test_a_disk_that_fills_half_way_leaves_nothing(
    make_plan: MakePlan, mount_tmpfs: Callable[[str, str], Path]
) -> None:
    disk = mount_tmpfs("small", "64m")
    other = disk / "of somebody else"

    def sink(event: types_pb2.Event) -> None:
        if event.progress.phase == "merging" and not other.exists():
            other.write_bytes(bytes(shutil.disk_usage(disk).free - 20_000))

    with pytest.raises(OSError, match="No space left") as caught:
        merge(make_plan(output=disk / "merged"), Reporter(sink))
    told = as_cutoff_error(caught.value, str(disk))
    assert isinstance(told, DiskFull)
    assert told.remedy
    assert list(disk.iterdir()) == [other]
