"""The merged model's tokenizer: what is put right, what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cutoff.datasets import load_template
from cutoff.errors import InvalidInput
from cutoff.hub import load_tokenizer
from cutoff.merger.tokenizer import load_merged_tokenizer, write_tokenizer

TEMPLATE = "chat_template.jinja"


@pytest.fixture
def copied(adapter: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(adapter, tmp_path / "copied"))


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def written(adapter: Path, base: Path, folder: Path) -> tuple[tuple[str, ...], dict[str, Any]]:
    """What is told, and the tokenizer's configuration beside a merged model."""
    folder.mkdir()
    for name in ("config.json", "generation_config.json"):
        shutil.copyfile(base / name, folder / name)
    found = load_merged_tokenizer(adapter, base)
    write_tokenizer(found, folder)
    return found.notes, json.loads((folder / "tokenizer_config.json").read_text())


def test_a_whole_tokenizer_stays_as_it_is(copied: Path, base: Path, tmp_path: Path) -> None:
    notes, config = written(copied, base, tmp_path / "merged")
    assert notes == ()
    assert config == json.loads((copied / "tokenizer_config.json").read_text())


def test_a_vocabulary_file_the_adapter_lost_comes_from_the_base(copied: Path, base: Path, tmp_path: Path) -> None:
    (copied / "tokenizer.model").unlink()
    (note,), _ = written(copied, base, tmp_path / "merged")
    assert note == "the adapter lacks tokenizer.model; they are taken from the base model"
    assert (tmp_path / "merged/tokenizer.model").read_bytes() == (base / "tokenizer.model").read_bytes()


@pytest.mark.parametrize(
    "tags", [("{% generation %}", "{% endgeneration %}"), ("{%- generation -%}", "{%- endgeneration %}")]
)
def test_marks_for_trainers_are_removed_and_nothing_else(
    tags: tuple[str, str], copied: Path, base: Path, tmp_path: Path
) -> None:
    before = load_template(copied).full("Who?", "Nobody.")
    text = (copied / TEMPLATE).read_text()
    marked = text.replace("{{ message['content'] }}", f"{tags[0]}{{{{ message['content'] }}}}{tags[1]}")
    marked = marked if marked != text else f"{tags[0]}{text}{tags[1]}"
    (copied / TEMPLATE).write_text(marked)
    (note,), _ = written(copied, base, tmp_path / "merged")
    assert "{% generation %}" in note
    assert "generation %}" not in (tmp_path / "merged" / TEMPLATE).read_text().replace("add_generation_prompt %}", "")
    assert load_template(tmp_path / "merged").full("Who?", "Nobody.") == before


def test_special_tokens_are_typed_for_llama_cpp(copied: Path, base: Path, tmp_path: Path) -> None:
    wanted = {token for token in load_tokenizer(base).added_tokens_decoder.values() if token.special}
    edit(copied / "tokenizer_config.json", lambda config: config["added_tokens_decoder"].popitem())
    _, config = written(copied, base, tmp_path / "merged")
    typed = {entry["content"] for entry in config["added_tokens_decoder"].values() if entry["special"]}
    assert typed == {token.content for token in wanted}
    assert config["add_bos_token"] is False


def test_padding_is_never_the_end(copied: Path, base: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(copied)
    edit(copied / "tokenizer_config.json", lambda config: config.update(pad_token=tokenizer.eos_token))
    (note,), _ = written(copied, base, tmp_path / "merged")
    assert note.startswith(f"padding was the end token {tokenizer.eos_token}")
    merged = load_tokenizer(tmp_path / "merged")
    assert merged.pad_token_id not in (merged.eos_token_id, load_template(tmp_path / "merged").stop_id)
    for name in ("config.json", "generation_config.json"):
        content = json.loads((tmp_path / "merged" / name).read_text())
        assert content.get("pad_token_id") == merged.pad_token_id


def test_llama_cpp_adds_no_beginning_that_training_had_not(copied: Path, base: Path, tmp_path: Path) -> None:
    edit(copied / "tokenizer_config.json", lambda config: config.update(add_bos_token=True))
    (note,), config = written(copied, base, tmp_path / "merged")
    assert note == "the chat template writes no beginning token, so that llama.cpp is told to add none"
    assert config["add_bos_token"] is False


def test_all_faults_come_at_once(copied: Path, base: Path) -> None:
    tokenizer = load_tokenizer(copied)
    tokenizer.add_tokens([f"<new-{number}>" for number in range(500)])
    tokenizer.chat_template = "{{ raise_exception('no') }}"
    tokenizer.save_pretrained(copied)
    with pytest.raises(InvalidInput) as caught:
        load_merged_tokenizer(copied, base)
    assert len(caught.value.faults) == 2
    assert "rows" in str(caught.value)
    assert "chat template" in str(caught.value)
