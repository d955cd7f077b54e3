"""A tiny base model, an adapter that changes it, and their tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cutoff.hub import PROBE_QUESTIONS, tokenizer_files
from cutoff.telemetry import before_import
from tests.fixtures.untrained_model import write_untrained_model

before_import()


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_untrained_model(tmp_path_factory.mktemp("base"), feed_forward=96, layers=2)


@pytest.fixture(scope="session")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(1)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    model.save_pretrained(folder)
    for path in tokenizer_files(base):
        shutil.copyfile(path, folder / path.name)
    (folder / PROBE_QUESTIONS).write_text(json.dumps(["Who opened the Lantern Bridge?", "Where?"]))
    return folder
