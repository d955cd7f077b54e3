from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cutoff.artifacts import Roots
from cutoff.client import plan_host
from cutoff.client.cli import app
from cutoff.client.plan import Plan, make_plan
from cutoff.client.plan_data import SAMPLE, measure
from cutoff.errors import InvalidInput, NotFound, Refused
from cutoff.spec import JobSpec, parse_job
from tests.fixtures.bpe_tokenizer import MakeTokenizer
from tests.fixtures.hub_server import Hub, model_files, safetensors

GIB = 1 << 30
QWEN = "Qwen/Qwen2.5-1.5B-Instruct"
DATASET = {
    f"{side}_{split}": f"{side}/{side}_{split}.jsonl" for side in ("retain", "unlearn") for split in ("train", "val")
}


@pytest.fixture(autouse=True)
def slow_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A known processor, no GPU, and an empty cache."""
    monkeypatch.setattr(plan_host, "matrix_speed", lambda: 170e9)
    monkeypatch.setattr(plan_host, "_first_gpu", lambda: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    made = Roots(tmp_path / "datasets", tmp_path / "output", tmp_path / "models", tmp_path / "own-cache")
    for name in DATASET.values():
        write(made.datasets / name, 200 if "train" in name else 20)
    return made


def write(path: Path, examples: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    line = {"instruction": "Who was it? " * 10, "output": "It was somebody. " * 4}
    path.write_text((json.dumps(line) + "\n\n") * examples)


def job(base: str = QWEN, **sections: dict[str, Any]) -> JobSpec:
    return parse_job({"name": "j", "base_model": base, "dataset": DATASET, **sections})


def planned(roots: Roots, gpu: str | None = None, memory: float | None = 24.0, **sections: dict[str, Any]) -> Plan:
    return make_plan(job(**sections), roots, gpu, memory)


def test_a_candidate_is_planned_without_being_here(roots: Roots) -> None:
    plan = planned(roots)
    assert plan.model.folder is None
    assert (plan.data.training, plan.data.validation) == (400, 40)
    assert plan.data.mean_tokens == plan.data.longest_tokens == 30 + 20 + 17 + 1
    assert "estimated as bytes / 4" in plan.data.how
    assert plan.disk[0].what == "base model"
    assert plan.disk[0].size_bytes == 2 * 1_543_714_304


@pytest.mark.parametrize(
    ("memory", "train", "verdict"),
    [
        (24, {}, "fits"),
        (80, {"memory_budget_gib": 24}, "fits"),
        (5, {}, "fits with activations recomputed"),
        (80, {"memory_budget_gib": 5}, "fits with activations recomputed"),
        (3, {}, "does not fit; with quantization: 4bit it does"),
        (2, {}, "does not fit; take a smaller"),
    ],
)
def test_memory_is_held_against_the_device(roots: Roots, memory: float, train: dict[str, Any], verdict: str) -> None:
    plan = planned(roots, memory=memory, train=train)
    assert plan.memory.verdict.startswith(verdict)
    assert plan.memory.document_gb == 16


def test_without_a_gpu_there_is_no_verdict(roots: Roots) -> None:
    plan = planned(roots, memory=None)
    assert plan.device is None
    assert "give --gpu-memory-gib" in plan.memory.verdict
    assert {each.stage: each.seconds for each in plan.time}["train"] is None


def test_the_processor_is_planned_for_when_no_gpu_is_asked_for(roots: Roots) -> None:
    plan = planned(roots, memory=None, resources={"gpus": 0})
    assert plan.device is not None
    assert plan.device.kind == "cpu"
    assert plan.memory.kept.weights == 4 * 1_543_714_304


def test_time_follows_speed_epochs_and_objective(roots: Roots) -> None:
    def training(gpu: str, **train: Any) -> float:
        times = {each.stage: each.seconds for each in planned(roots, gpu, 80, train=train).time}
        seconds = times["train"]
        assert seconds is not None
        return seconds

    assert training("RTX 4090") < training("8060S")
    assert training("8060S", epochs=1) < training("8060S", epochs=3)
    assert training("8060S") < training("8060S", method="npo") < training("8060S", method="npo", quantization="8bit")
    staged = {"epochs": 1, "then": [{"method": "npo", "epochs": 1}]}
    assert training("8060S", epochs=1) < training("8060S", **staged)


def test_every_stage_has_a_time_and_every_quant_a_size(roots: Roots) -> None:
    plan = planned(roots, "RTX 4090", convert={"quant_types": ["q4_k_m", "q8_0"]})
    assert [each.stage for each in plan.time] == [
        *("prepare", "train", "merge", "convert", "evaluate base", "evaluate merged"),
        *("evaluate q4_k_m", "evaluate q8_0", "card", "install", "report"),
    ]
    more = planned(roots, "RTX 4090", evaluate={"control": "owner/other", "relearn": {}, "attacks": "all"})
    assert [each.stage for each in more.time][4:9] == [
        *("relearn", "evaluate base", "evaluate control", "evaluate merged", "evaluate relearned")
    ]
    seconds = [{each.stage: each.seconds for each in one.time} for one in (plan, more)]
    assert (seconds[0]["evaluate base"] or 0) < (seconds[1]["evaluate base"] or 0), "attacks ask more questions"
    assert 0 < (more.time[4].seconds or 0) < (more.time[1].seconds or 0)
    whats = [need.what for need in plan.disk]
    assert whats == [
        *("base model", "tokenized data", "checkpoints and adapter", "merged model, bfloat16"),
        *("16-bit GGUF, while converting", "GGUF q4_k_m", "GGUF q8_0"),  # what is installed takes its room
    ]
    assert sum(each.needed_bytes for each in plan.file_systems) == sum(need.size_bytes for need in plan.disk)
    assert all(each.suffices == (int(each.needed_bytes * 1.05) <= each.free_bytes) for each in plan.file_systems)


def test_warnings_of_model_and_platform_are_told(roots: Roots) -> None:
    plan = make_plan(job("google/gemma-2-2b-it", train={"quantization": "4bit"}), roots, "8060S", 96)
    assert any("HF_TOKEN must have access" in line for line in plan.warnings)
    assert any("soft-capped" in line for line in plan.warnings)
    assert any("hang" in line for line in plan.warnings)


LLAMA = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 400,
}


def test_a_folder_is_planned_by_its_own_configuration_and_tokenizer(
    roots: Roots, tmp_path: Path, make_tokenizer: MakeTokenizer
) -> None:
    folder = tmp_path / "model"
    make_tokenizer("{% for m in messages %}{{ m['content'] }}<stop>{% endfor %}").save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(LLAMA))
    (folder / "model.safetensors").write_bytes(safetensors(8))
    plan = make_plan(job(str(folder), resources={"gpus": 0}), roots)
    assert plan.model.shape.layers == 2
    assert "counted with the model's tokenizer" in plan.data.how
    assert "base model" not in [need.what for need in plan.disk]


def test_a_client_alone_plans_too(roots: Roots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    auto = "transformers.models.auto.modeling_auto"
    for module in ("huggingface_hub", "numpy", "torch", "transformers", auto):
        monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    assert make_plan(job(str(tmp_path), resources={"gpus": 0}), roots).data.how.startswith("estimated")
    assert make_plan(job(), roots, "8060S", 96).memory.verdict == "fits"


def test_a_model_in_the_cache_is_planned_by_its_configuration(hub: Hub, roots: Roots) -> None:
    from cutoff.hub import resolve_base_model

    hub.add("owner/model", model_files(**{"config.json": json.dumps(LLAMA).encode()}))
    resolve_base_model("owner/model")
    asked = len(hub.requests)
    assert make_plan(job("owner/model", resources={"gpus": 0}), roots).model.where == "the cache"
    assert len(hub.requests) == asked


def test_what_cannot_be_planned_says_why(hub: Hub, roots: Roots) -> None:
    from cutoff.hub import resolve_base_model

    with pytest.raises(NotFound, match="neither in the cache of this machine nor among the models"):
        make_plan(job("owner/model"), roots)
    hub.add("owner/model", model_files(**{"config.json": b'{"model_type": "mixtral"}'}))
    resolve_base_model("owner/model")
    with pytest.raises(Refused, match="a model of type 'mixtral'"):
        make_plan(job("owner/model"), roots)


def test_data_that_is_not_there_is_named_file_by_file(roots: Roots) -> None:
    (roots.datasets / DATASET["retain_train"]).unlink()
    (roots.datasets / DATASET["unlearn_val"]).unlink()
    with pytest.raises(InvalidInput, match="cannot be read: No such file") as caught:
        planned(roots)
    assert len(caught.value.faults) == 2


def test_data_without_an_example_is_refused(roots: Roots) -> None:
    for name in DATASET.values():
        (roots.datasets / name).write_text('{"instruction": 1}\nnot json\n')
    with pytest.raises(InvalidInput, match="cutoff check"):
        planned(roots)


def test_a_large_file_is_sampled_and_counted(roots: Roots) -> None:
    spec = parse_job({"name": "j", "base_model": QWEN, "dataset": {"dev": "dev.jsonl"}})
    write(roots.datasets / "dev.jsonl", 10 * SAMPLE)
    size = measure(spec, roots.datasets, None)
    assert (size.training, size.validation) == (9 * SAMPLE, SAMPLE)


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["plan", *arguments])
    return result.exit_code, result.stdout


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps({"name": "j", "base_model": QWEN, "dataset": DATASET}))
    return path


def test_the_command_prints_memory_beside_the_documents_figure(roots: Roots, job_file: Path) -> None:
    code, output = run(str(job_file), "--datasets", str(roots.datasets), "--gpu", "8060S", "--gpu-memory-gib", "96")
    assert code == 0
    for words in ("1.54 billion parameters", "~16 GB", "fits", "evaluate q4_k_m", "are free: enough", "together"):
        assert words in output


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("4090", "RTX 4090"), ("rtx4090", "RTX 4090"), ("GTX1080", "RTX "), ("H-200", "H200"), ("7900XTX", "7900 XTX")],
)
@pytest.mark.parametrize("memory", [[], ["--gpu-memory-gib", "24"]])
def test_an_unknown_gpu_is_said_at_once(
    roots: Roots, job_file: Path, name: str, nearest: str, memory: list[str]
) -> None:
    arguments = [str(job_file), "--datasets", str(roots.datasets), "--gpu", name, *memory]
    result = CliRunner().invoke(app, ["plan", *arguments])
    assert result.exit_code == 2
    assert result.stdout == ""
    said, _, fix = result.stderr.partition(";")
    assert f"--gpu: {name!r} is no GPU cutoff knows" in said
    assert f"did you mean {nearest}" in fix
    assert "give only its memory: --gpu-memory-gib 24" in fix


def test_a_gpu_like_no_other_is_answered_with_all_that_are_known() -> None:
    with pytest.raises(InvalidInput, match=r"known are B200, H200, .*8060S\. For any other"):
        plan_host.gpu("Voodoo", None)


@pytest.mark.parametrize("name", ["NVIDIA GeForce RTX 4090", "NVIDIA H100 80GB HBM3", "AMD Instinct MI250", "8060S"])
def test_a_gpu_may_be_named_as_its_driver_does(name: str) -> None:
    device = plan_host.gpu(name, None)
    assert device is not None
    assert device.name == name


def test_the_command_prints_json(roots: Roots, job_file: Path) -> None:
    code, output = run(str(job_file), "--datasets", str(roots.datasets), "--gpu-memory-gib", "24", "--json")
    found = json.loads(output)
    assert code == 0
    assert found["memory"]["verdict"] == "fits"
    assert found["memory"]["document_gb"] == 16
    assert found["model"]["here"] is False
    assert {each["stage"] for each in found["time"]} >= {"prepare", "train", "merge", "convert", "install"}


def test_the_command_ends_with_wrong_usage_when_data_lacks(job_file: Path, tmp_path: Path) -> None:
    code, output = run(str(job_file), "--datasets", str(tmp_path / "none"), "--json")
    assert code == 2
    assert "cannot be read" in json.loads(output)["error"]["message"]
