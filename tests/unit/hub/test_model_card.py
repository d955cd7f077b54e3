from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cutoff.hub import license_of


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("---\nlicense: apache-2.0\ntags: [a]\n---\n# Model", "apache-2.0"),
        ("---\nlicense: other\nlicense_name: gemma\n---\n", "gemma"),
        ("---\nlicense: other\n---\n", "other"),
        ("---\nlicense: [mit, bsd]\n---\n", "mit,bsd"),
        ("---\ntags: [a]\n---\n", ""),
        ("# Model\nlicense: mit\n", ""),
        ("---\nlicense: mit\n", ""),
        ("---\n- a\n---\n", ""),
        ("---\nlicense: [\n---\n", ""),
        ("", ""),
    ],
)
def test_the_licence_is_the_cards(tmp_path: Path, card: str, expected: str) -> None:
    (tmp_path / "README.md").write_text(card)
    assert license_of(tmp_path) == expected


def test_a_folder_without_a_card_names_none(tmp_path: Path) -> None:
    assert license_of(tmp_path) == ""


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_no_card_is_a_crash(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "README.md").write_bytes(b"---\n" + content + b"\n---\n")
    assert isinstance(license_of(tmp_path), str)
