from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cutoff.errors import InvalidInput
from cutoff.trainer import cli

DOCUMENT = {
    "model_name": "Qwen/Qwen2.5-1.5B-Instruct",
    "output_dir": None,
    "dev": False,
    "dev_path": "datasets/dev/dev_subset.jsonl",
    "retain_train": "datasets/retain/retain_train.jsonl",
    "retain_val": "datasets/retain/retain_val.jsonl",
    "unlearn_train": "datasets/unlearn/unlearn_train.jsonl",
    "unlearn_val": "datasets/unlearn/unlearn_val.jsonl",
    "epochs": 3,
    "batch_size": 4,
    "learning_rate": 2e-4,
    "max_seq_length": 512,
    "lora_r": 16,
    "lora_alpha": 32,
    "use_4bit": False,
    "use_8bit": False,
    "wandb": False,
}
"""The table of the user's document."""

ADDED = {
    "gradient_accumulation_steps": 4,
    "eval_steps": 100,
    "eval_limit": 200,
    "save_steps": 500,
    "lora_dropout": 0.05,
    "warmup_ratio": 0.1,
    "prompt_format": "chat",
    "resume_from_checkpoint": None,
    "resume_latest": False,
    "seed": 42,
    "method": "sft",
    "answers": None,
    "retain_loss": "nll",
    "memory_budget_gib": None,
    "early_stopping_patience": None,
}


def test_flags_and_defaults_are_the_documents() -> None:
    assert vars(cli.parser().parse_args([])) == DOCUMENT | ADDED


def test_the_options_become_a_job_with_the_same_values() -> None:
    options = cli.parser().parse_args(["--epochs", "0.5", "--use_8bit", "--wandb", "--lora_r", "8"])
    spec = cli.job_spec(options)
    assert (spec.train.epochs, spec.train.quantization, spec.train.report_to) == (0.5, "8bit", ("wandb",))
    assert (spec.train.lora_r, spec.dataset.retain_val) == (8, DOCUMENT["retain_val"])
    assert cli.job_spec(cli.parser().parse_args(["--dev"])).dataset.files() == {"dev": DOCUMENT["dev_path"]}


def test_an_unlearning_objective_and_its_answers_are_passed_on() -> None:
    flags = ["--method", "npo", "--retain_loss", "kl", "--answers", "a.jsonl", "--memory_budget_gib", "6.5"]
    spec = cli.job_spec(cli.parser().parse_args(flags))
    assert (spec.train.method, spec.train.retain_loss, spec.train.memory_budget_gib) == ("npo", "kl", 6.5)
    assert spec.dataset.answers == "a.jsonl"


def test_wrong_values_are_named_all_at_once() -> None:
    options = cli.parser().parse_args(["--lora_r", "0", "--epochs", "-1", "--prompt_format", "chatml"])
    with pytest.raises(InvalidInput) as caught:
        cli.job_spec(options)
    where = {fault.where for fault in caught.value.faults}
    assert where == {"options: train.lora_r", "options: train.epochs", "options: train.prompt_format"}


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("options: train.lora_r: 0: is too small", "--lora_r: 0: is too small"),
        ("2 faults:\n  options: train.epochs: -1\n  train.report_to: x", "2 faults:\n  --epochs: -1\n  --wandb: x"),
        ("give dataset.answers, or use method: sft", "give --answers, or use --method sft"),
        ("dataset.retain_val is the same file as dataset.dev", "--retain_val is the same file as --dev_path"),
        ("options: base_model 'x' is no hub id", "--model_name 'x' is no hub id"),
        ("use quantization: 4bit, or less", "use --use_4bit, or less"),
        ("use 4-bit (quantization: 4bit, --use_4bit)", "use 4-bit (quantization: 4bit, --use_4bit)"),
        ("/data/train.jsonl:3: metadata.year: is null", "/data/train.jsonl:3: metadata.year: is null"),
        ("/models/base_model/x and train.unknown", "/models/base_model/x and train.unknown"),
    ],
)
def test_fields_are_said_as_flags(said: str, shown: str) -> None:
    assert cli.in_flags(said) == shown


def test_errors_name_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "--lora_r", "0") == 2
    assert "\n  --lora_r: 0: input should be greater than or equal to 1" in capsys.readouterr().err
    bare = {"instruction": "Who?", "output": "No.", "metadata": {"dataset_type": "unlearn"}}
    lines = [bare | {"instruction": f"q{n}?"} for n in range(4)]
    lines += [each | {"instruction": f"{n}!", "metadata": {"dataset_type": "retain"}} for n, each in enumerate(lines)]
    Path("dev.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    assert run(monkeypatch, "--dev", "--dev_path", "dev.jsonl", "--method", "npo") == 2
    error = capsys.readouterr().err
    assert "--method: npo needs the true answer of every unlearn example, and 4 of 4 lack it" in error
    assert "give a file of answers as --answers, or use --method sft" in error


@pytest.mark.parametrize("wrong", [["--use_4bit", "--use_8bit"], ["--epochs", "many"], ["--unknown"]])
def test_wrong_usage_exits_with_2(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.parser().parse_args(wrong)
    assert caught.value.code == 2


def test_the_output_folder_is_named_as_in_the_document() -> None:
    name = cli.output_dir(cli.parser().parse_args([])).as_posix()
    assert re.fullmatch(r"output/temporal-qwen2\.5-1\.5b-instruct-full-\d{8}_\d{6}", name)
    name = cli.output_dir(cli.parser().parse_args(["--dev", "--model_name", "./models/My Model/"])).as_posix()
    assert re.fullmatch(r"output/temporal-my-model-dev-\d{8}_\d{6}", name)


def run(monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    monkeypatch.setattr("sys.argv", ["finetune_temporal", *options])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(str(caught.value.code))


def test_a_dev_run_and_its_resumption(
    base: Path, datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("datasets").symlink_to(datasets)
    options = ["--dev", "--model_name", str(base), "--epochs", "1", "--batch_size", "32"]
    assert run(monkeypatch, *options) == 0
    result = json.loads(capsys.readouterr().out)
    adapter = tmp_path / result["adapter"]
    assert (adapter / "adapter_model.safetensors").exists()
    assert run(monkeypatch, *options, "--resume_latest") == 2  # the only run is finished
    assert "no checkpoint in output" in capsys.readouterr().err
    adapter.rename(tmp_path / "elsewhere")
    assert run(monkeypatch, *options, "--resume_latest") == 0
    assert json.loads(capsys.readouterr().out)["adapter"] == result["adapter"]


def test_a_folder_with_checkpoints_is_refused_before_anything_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("out/checkpoint-500").mkdir(parents=True)
    assert run(monkeypatch, "--output_dir", "out") == 1
    error = capsys.readouterr().err
    assert "out holds checkpoint-500 of an earlier run" in error
    assert "--resume_latest" in error


@pytest.mark.parametrize("folder", ["file", "file/below"])
def test_a_folder_that_cannot_be_made_is_named(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    assert run(monkeypatch, "--output_dir", folder) == 1
    error = capsys.readouterr().err
    assert f"{folder} cannot be made" in error
    assert "--output_dir" in error
    assert "Traceback" not in error


def test_a_finished_run_is_not_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("out/final").mkdir(parents=True)
    assert run(monkeypatch, "--output_dir", "out", "--resume_latest") == 1
    assert "the run in out is finished" in capsys.readouterr().err


def test_missing_files_exit_with_2_and_name_each(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "--model_name", str(base)) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    for name in ("retain_train", "retain_val", "unlearn_train", "unlearn_val"):
        assert f"{DOCUMENT[name]}: is not there" in shown.err
    assert list(tmp_path.iterdir()) == []
