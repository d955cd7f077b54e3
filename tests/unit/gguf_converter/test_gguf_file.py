from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cutoff.errors import CheckFailed, NotFound
from cutoff.gguf_converter.gguf_file import read_gguf
from tests.fixtures.gguf_files import write_gguf


def test_a_whole_file_says_what_it_is(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "a.gguf")
    facts = read_gguf(path)
    assert (facts.architecture, facts.tensors, facts.vocabulary, facts.context) == ("llama", 1, 3, 512)
    assert facts.has_template
    assert facts.size_bytes == path.stat().st_size


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_that_is_cut_short_anywhere_is_found_out(tmp_path: Path, share: float) -> None:
    whole = write_gguf(tmp_path / "whole.gguf").read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CheckFailed):
        read_gguf(cut)


@pytest.mark.parametrize("content", [b"", b"GGUF", b"hello" * 100, b"\0" * 4096])
def test_what_is_no_gguf_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(CheckFailed, match=r"x\.gguf"):
        read_gguf(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"none\.gguf"):
        read_gguf(tmp_path / "none.gguf")
