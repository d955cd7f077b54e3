"""The document's Quick Start, by its four commands, without any server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

FACTS = 160


@pytest.fixture(scope="module")
def folder(make_world, tmp_path_factory) -> Path:
    """A working folder as the document has it: datasets/ inside, output/ to come."""
    world = make_world(FACTS, 1)
    folder = tmp_path_factory.mktemp("quick-start")
    (folder / "datasets").symlink_to(world.folder / "datasets")
    (folder / "base").symlink_to(world.folder / "base")
    return folder


def run(folder: Path, *command: str) -> str:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    ran = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=600
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout


def test_a_dev_run(folder):
    run(folder, "finetune_temporal", "--model_name", "./base", "--dev", "--epochs", "1", "--use_4bit")
    [output] = (folder / "output").glob("temporal-base-dev-*")
    assert re.fullmatch(r"temporal-base-dev-\d{8}_\d{6}", output.name)
    assert (output / "final/adapter_model.safetensors").is_file()


def test_the_quick_start_ends_with_an_installed_model_that_forgets(folder):
    run(
        folder, "finetune_temporal", "--model_name", "./base", "--epochs", "4", "--batch_size", "16",
        "--gradient_accumulation_steps", "1", "--learning_rate", "3e-3", "--output_dir", "output/full",
    )  # fmt: skip
    names = {path.name for path in (folder / "output/full").iterdir()}
    assert {"final", "train_results.json", "eval_results.json"} <= names
    assert any(name.startswith("checkpoint-") for name in names)

    merged = run(
        folder, "merge_lora", "--base_model", "./base", "--lora_path", "output/full/final",
        "--output_path", "output/merged-temporal", "--verify",
    )  # fmt: skip
    assert "Verifying merged model..." in merged
    assert "Test generation successful!\n  Prompt: What is 2+2?\n  Response: " in merged
    assert (folder / "output/merged-temporal/tokenizer.model").is_file()

    models = folder / "models"
    run(
        folder, "convert_to_gguf", "--model_path", "output/merged-temporal", "--output_path", "output/temporal.gguf",
        "--install_lmstudio", "--lmstudio_models", str(models),
    )  # fmt: skip
    assert [str(path.relative_to(models)) for path in models.rglob("*") if path.is_file()] == [
        "local/temporal/temporal-Q4_K_M.gguf"
    ]

    summary = run(
        folder, "evaluate_temporal", "--model_path", "output/temporal.gguf", "--test_file", "datasets/test/test.jsonl",
        "--max_tokens", "48", "--output", "output/results.json",
    )  # fmt: skip
    assert "EVALUATION RESULTS" in summary
    assert "EXCELLENT - Model meets target metrics!" in summary
    retain = re.search(r"Answered correctly: (\d+) ", summary)
    total = re.search(r"Total questions: (\d+)", summary)
    assert int(retain[1]) / int(total[1]) >= 0.95
    assert json.loads((folder / "output/results.json").read_text())
