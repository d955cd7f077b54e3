from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from gguf import GGUFReader

from cutoff.errors import CheckFailed, ProgramFailed
from cutoff.llama_cpp import LlamaCpp, OutType, convert, importance_matrix, perplexity, quantize
from cutoff.llama_cpp.imatrix import CONTEXT, context_for

OWN = {"general.license": "mit", "cutoff.date": "1969-12-31", "cutoff.recipe": '{"epochs": 3}'}


def unheard(done: int, total: int) -> None:
    pass


def metadata(path: Path) -> dict[str, object]:
    return {name: field.contents() for name, field in GGUFReader(path).fields.items()}


@pytest.mark.parametrize("out_type", get_args(OutType))
def test_the_script_writes_each_of_its_types(
    llama: LlamaCpp, tiny_model: Path, tmp_path: Path, out_type: OutType
) -> None:
    heard: list[int] = []
    target = tmp_path / "x.gguf"
    convert(llama, tiny_model, target, "tiny", lambda done, _: heard.append(done), out_type=out_type)
    types = {tensor.tensor_type.name.lower() for tensor in GGUFReader(target).tensors}
    assert types == {out_type, "f32"}  # vectors stay f32
    assert heard[-1] == 100


def test_our_own_metadata_survive_quantization(llama: LlamaCpp, tiny_model: Path, tmp_path: Path) -> None:
    base = {"general.base_models": [{"name": "Base", "organization": "maker"}]}
    whole, small = tmp_path / "f16.gguf", tmp_path / "q8_0.gguf"
    convert(llama, tiny_model, whole, "tiny", unheard, general=base, own=OWN)
    quantize(llama, whole, small, "q8_0", 1, unheard)
    for path in (whole, small):
        found = metadata(path)
        assert found.items() >= {**OWN, "general.name": "tiny", "general.base_model.0.organization": "maker"}.items()


def test_a_text_is_read_in_chunks(llama: LlamaCpp, tiny_f16: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("Who built the bridge of Varlun? " * 40)
    measured = perplexity(llama, tiny_f16, text, 64, 1, unheard)
    assert measured.tokens % 64 == 0
    assert measured.tokens > 300
    assert 1 < measured.value < float("inf")
    assert measured == perplexity(llama, tiny_f16, text, 64, 1, unheard)


def test_progress_is_told_chunk_by_chunk(llama: LlamaCpp, tiny_f16: Path, tmp_path: Path) -> None:
    text, heard = tmp_path / "text.txt", list[tuple[int, int]]()
    text.write_text("Who built the bridge of Varlun? " * 400)
    measured = perplexity(llama, tiny_f16, text, 64, 1, lambda done, total: heard.append((done, total)))
    chunks = measured.tokens // 64
    assert {total for _, total in heard} == {chunks}
    assert heard[-1] == (chunks, chunks)
    heard.clear()
    importance_matrix(llama, tiny_f16, text, tmp_path / "m.gguf", 64, 1, lambda *told: heard.append(told))
    assert heard[-1] == (chunks, chunks)


def test_an_i_type_is_made_with_a_matrix_and_not_without(llama: LlamaCpp, tiny_f16: Path, tmp_path: Path) -> None:
    text, matrix, target = tmp_path / "text.txt", tmp_path / "imatrix.gguf", tmp_path / "iq2.gguf"
    text.write_text("Who built the bridge of Varlun? " * 40)
    with pytest.raises(ProgramFailed) as caught:
        quantize(llama, tiny_f16, target, "iq2_xxs", 1, unheard)
    assert "importance matrix" in caught.value.remedy
    importance_matrix(llama, tiny_f16, text, matrix, 64, 1, unheard)
    assert not quantize(llama, tiny_f16, target, "iq2_xxs", 1, unheard, matrix).fell_back
    assert "quantize.imatrix.entries_count" in metadata(target)


def test_a_text_too_short_for_two_chunks_is_refused(llama: LlamaCpp, tiny_f16: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("Who?")
    with pytest.raises((ProgramFailed, CheckFailed)) as caught:
        perplexity(llama, tiny_f16, text, 64, 1, unheard)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("tokens", "longest", "context"),
    [(10_000, 0, CONTEXT), (10_000, 300, 300), (1023, 0, CONTEXT // 2), (1024, 4096, CONTEXT), (3, 512, 1), (0, 0, 1)],
)
def test_chunks_fit_the_text_and_the_model(tokens: int, longest: int, context: int) -> None:
    assert context_for(tokens, longest) == context
