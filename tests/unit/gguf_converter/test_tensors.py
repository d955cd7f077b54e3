"""A damaged file is found by reading it back, wherever the damage is."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader

from cutoff.errors import CheckFailed
from cutoff.gguf_converter.tensors import read_tensors
from cutoff.llama_cpp import LlamaCpp, quantize
from tests.fixtures.gguf_files import write_gguf


def unheard(done: int, total: int) -> None:
    pass


@pytest.fixture
def small(llama: LlamaCpp, tiny_f16: Path, tmp_path: Path) -> Path:
    path = tmp_path / "small.gguf"
    quantize(llama, tiny_f16, path, "q4_k_m", 1, unheard)
    return path


def damage(path: Path, tensor: str, at: int, content: bytes) -> None:
    found = next(each for each in GGUFReader(path).tensors if each.name == tensor)
    with path.open("r+b") as file:
        file.seek(int(found.data_offset) + at)
        file.write(content)


def test_a_whole_file_is_told_tensor_by_tensor(small: Path, tiny_f16: Path) -> None:
    heard: list[tuple[int, int]] = []
    compared = read_tensors(small, lambda done, total: heard.append((done, total)), tiny_f16)
    assert heard == [(done, 11) for done in range(1, 12)]
    assert compared.types == {"Q4_K": 5, "F32": 3, "Q6_K": 3}
    assert 0.01 < compared.worst_error < 0.1
    assert read_tensors(tiny_f16, unheard).worst == ""


@pytest.mark.parametrize("tensor", ["token_embd.weight", "blk.0.ffn_up.weight", "output_norm.weight"])
def test_a_tensor_of_zeros_is_found(small: Path, tiny_f16: Path, tensor: str) -> None:
    size = next(int(each.n_bytes) for each in GGUFReader(small).tensors if each.name == tensor)
    damage(small, tensor, 0, bytes(size))
    with pytest.raises(CheckFailed, match=f"{tensor} .*is not what it was made from"):
        read_tensors(small, unheard, tiny_f16)


def test_a_scale_that_is_no_number_is_found(small: Path, tiny_f16: Path) -> None:
    damage(small, "blk.0.ffn_up.weight", 144 * 5, np.array([np.nan], "<f2").tobytes())  # the 6th block's scale
    with pytest.raises(CheckFailed, match=r"blk.0.ffn_up.weight .*no numbers"):
        read_tensors(small, unheard, tiny_f16)
    with pytest.raises(CheckFailed, match="no numbers"):
        read_tensors(small, unheard)


def test_two_tensors_in_each_others_place_are_found(small: Path, tiny_f16: Path) -> None:
    tensors = {each.name: each.data.tobytes() for each in GGUFReader(small).tensors}
    damage(small, "blk.0.ffn_up.weight", 0, tensors["blk.0.ffn_gate.weight"])
    with pytest.raises(CheckFailed, match="ffn_up"):
        read_tensors(small, unheard, tiny_f16)


def test_another_vocabulary_is_found(small: Path, tiny_f16: Path) -> None:
    content = small.read_bytes()
    at = content.index(b"<|im_end|>", content.index(b"tokenizer.ggml.tokens"))
    small.write_bytes(content[:at] + b"<|im_END|>" + content[at + 10 :])
    with pytest.raises(CheckFailed, match=r"tokenizer.ggml.tokens of small.gguf is not"):
        read_tensors(small, unheard, tiny_f16)


def test_another_models_tensors_are_found(tmp_path: Path) -> None:
    one, other = write_gguf(tmp_path / "a.gguf"), write_gguf(tmp_path / "b.gguf", rows=32)
    with pytest.raises(CheckFailed, match=r"token_embd.weight is \(32, 32\), in the 16-bit file \(32, 64\)"):
        read_tensors(other, unheard, one)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_file_that_is_cut_short_is_found(small: Path, tiny_f16: Path, share: float) -> None:
    cut = shutil.copy(small, small.with_name("cut.gguf"))
    with open(cut, "r+b") as file:
        file.truncate(int(small.stat().st_size * share))
    with pytest.raises(CheckFailed, match=r"cut\.gguf"):
        read_tensors(Path(cut), unheard, tiny_f16)
