"""A base model's licence: from its own card, or the table of candidates."""

from pathlib import Path

import pytest

from cutoff.hub import licence_of


@pytest.mark.parametrize(
    ("readme", "wanted"),
    [
        ("---\nlicense: mit\nlanguage: [en]\n---\n# Model\n", "mit"),
        ("---\nlicense: other\nlicense_name: qwen-research\n---\n", "qwen-research"),
        ("---\nlicense: other\n---\n", "other"),
        ("# Model\nlicense: mit\n", ""),
        ("---\nlicense: mit\n", ""),
        ("---\n: [\n---\n", ""),
        ("---\n- a list\n---\n", ""),
        ("", ""),
    ],
)
def test_the_head_of_the_models_own_card(tmp_path: Path, readme: str, wanted: str) -> None:
    (tmp_path / "README.md").write_text(readme)
    assert licence_of("owner/model", tmp_path) == wanted


def test_a_card_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(b"---\nlicense: \xff\n---\n")
    assert licence_of("owner/model", tmp_path) == ""


def test_a_candidate_without_its_card(tmp_path: Path) -> None:
    assert licence_of("Qwen/Qwen2.5-1.5B-Instruct@main", tmp_path) == "Apache 2.0"
    assert licence_of("./base", tmp_path) == ""
