"""A GGUF that is not the merged model is found by what it predicts, however whole its weights are."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from transformers import AutoConfig, AutoModelForCausalLM

from cutoff.datasets import PromptTemplate, load_template
from cutoff.errors import CheckFailed
from cutoff.gguf_converter.checks import Check
from cutoff.gguf_converter.predictions import LIMIT, Continued, check_predictions, continue_texts
from cutoff.llama_cpp import LlamaCpp, convert, serve

QUESTIONS = ["Who built the bridge of Varlun?"]
CONTEXT = 512


@pytest.fixture
def template(tiny_model: Path) -> PromptTemplate:
    return load_template(tiny_model)


def continued(llama: LlamaCpp, gguf: Path, template: PromptTemplate) -> Sequence[Continued]:
    with serve(llama, gguf, CONTEXT, threads=1) as server:
        return continue_texts(template, server, QUESTIONS, CONTEXT)


def test_a_faithful_file_predicts_what_the_model_does(
    llama: LlamaCpp, tiny_model: Path, tiny_f16: Path, template: PromptTemplate
) -> None:
    row = Check("predictions", "f16")
    check_predictions(row, tiny_model, continued(llama, tiny_f16, template), tiny_f16)
    assert row.state == "passed"
    assert float(row.figure.split()[0]) < 0.05
    assert "of 5 texts" in row.figure


def test_sixteen_bit_arithmetic_is_no_other_prediction(
    llama: LlamaCpp, tiny_model: Path, tiny_f16: Path, template: PromptTemplate, tmp_path: Path
) -> None:
    stored = Path(shutil.copytree(tiny_model, tmp_path / "stored"))
    AutoModelForCausalLM.from_pretrained(tiny_model, dtype="bfloat16").save_pretrained(stored)
    row = Check("predictions", "f16")
    check_predictions(row, stored, continued(llama, tiny_f16, template), tiny_f16)
    assert float(row.figure.split()[0]) < LIMIT / 2


def test_half_characters_are_no_other_prediction(llama: LlamaCpp, tiny_model: Path, tmp_path: Path) -> None:
    """A token may be one byte of a character: llama-server tells nothing of it until the character is whole."""
    raw = Path(shutil.copytree(tiny_model, tmp_path / "raw"))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tiny_model))
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    model.save_pretrained(raw)
    gguf = tmp_path / "raw.gguf"
    convert(llama, raw, gguf, "raw", lambda done, total: None)
    texts = continued(llama, gguf, load_template(raw))
    assert any(not each for text in texts for each in text.predicted), "no text went on with a byte alone"
    row = Check("predictions", "f16")
    check_predictions(row, raw, texts, gguf)
    assert float(row.figure.split()[0]) < 0.05


def test_other_positions_are_found(
    llama: LlamaCpp, tiny_model: Path, tiny_f16: Path, template: PromptTemplate, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.gguf"
    override = ["--override-kv", "llama.rope.freq_base=float:500"]
    subprocess.run([llama.quantize, *override, tiny_f16, wrong, "F16"], check=True, capture_output=True)
    with pytest.raises(CheckFailed, match="predicts other tokens"):
        check_predictions(Check("predictions", "f16"), tiny_model, continued(llama, wrong, template), wrong)


def swap_rotary_halves(weights: np.ndarray) -> np.ndarray:
    """As transformers orders the rows of a query matrix; a Llama's GGUF has them in pairs."""
    rows, columns = weights.shape
    heads = 4
    return weights.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def one_less(weights: np.ndarray) -> np.ndarray:
    return weights - 1  # Gemma's norms are stored so


def upside_down(weights: np.ndarray) -> np.ndarray:
    return weights[::-1]


@pytest.mark.parametrize(
    ("tensor", "change"),
    [
        ("blk.0.attn_q.weight", swap_rotary_halves),
        ("blk.0.attn_k.weight", swap_rotary_halves),
        ("blk.0.attn_norm.weight", one_less),
        ("output_norm.weight", one_less),
        ("blk.0.ffn_down.weight", upside_down),
    ],
)
def test_a_wrong_conversion_is_found(
    llama: LlamaCpp,
    tiny_model: Path,
    tiny_f16: Path,
    template: PromptTemplate,
    tmp_path: Path,
    tensor: str,
    change: Callable[[np.ndarray], np.ndarray],
) -> None:
    wrong = Path(shutil.copy(tiny_f16, tmp_path / "wrong.gguf"))
    found = next(each for each in GGUFReader(wrong, "r+").tensors if each.name == tensor)
    found.data[:] = change(np.array(found.data))
    found.data.flush()
    with pytest.raises(CheckFailed, match=r"wrong\.gguf predicts other tokens") as caught:
        check_predictions(Check("predictions", "f16"), tiny_model, continued(llama, wrong, template), wrong)
    assert "--llama_cpp_path" in caught.value.remedy
