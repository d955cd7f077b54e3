from __future__ import annotations

import json
from pathlib import Path

import pytest

from cutoff.datasets import load_template
from cutoff.hub import carry_tokenizer, load_tokenizer, tokenizer_files
from tests.fixtures.bpe_tokenizer import MakeTokenizer


@pytest.fixture
def source(tmp_path: Path, make_tokenizer: MakeTokenizer) -> Path:
    folder = tmp_path / "base"
    make_tokenizer(None, bos=True).save_pretrained(folder)
    (folder / "tokenizer.model").write_bytes(b"sentencepiece")
    (folder / "special_tokens_map.json").write_text('{"eos_token": "<end>"}')
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_every_file_is_carried_as_it_is_and_nothing_else(tmp_path: Path, source: Path) -> None:
    target = tmp_path / "to"
    target.mkdir()
    carry_tokenizer(source, target, load_tokenizer(source))
    assert [path.name for path in tokenizer_files(target)] == [path.name for path in tokenizer_files(source)]
    assert not (target / "model.safetensors").exists()
    for path in tokenizer_files(source):
        if path.name != "tokenizer_config.json":
            assert (target / path.name).read_bytes() == path.read_bytes()


def test_what_llama_cpp_reads_is_added_where_transformers_left_it_out(tmp_path: Path, source: Path) -> None:
    before = json.loads((source / "tokenizer_config.json").read_text())
    assert "added_tokens_decoder" not in before
    carry_tokenizer(source, tmp_path, load_tokenizer(source))
    after = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert after["add_bos_token"] is True
    assert after["added_tokens_decoder"]["4"]["content"] == "<stop>"
    assert after["added_tokens_decoder"]["4"]["special"] is True
    assert before.items() <= after.items()


def test_what_a_base_says_about_itself_stays(tmp_path: Path, source: Path) -> None:
    path = source / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "add_bos_token": False, "own_key": [1]}))
    carry_tokenizer(source, tmp_path, load_tokenizer(source))
    after = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert (after["add_bos_token"], after["own_key"]) == (False, [1])


def test_the_alpaca_template_is_carried_and_reads_back_the_same(tmp_path: Path, source: Path) -> None:
    template = load_template(source, "alpaca")
    carry_tokenizer(source, tmp_path, template.tokenizer)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["chat_template"] == (tmp_path / "chat_template.jinja").read_text()
    again = load_template(tmp_path, "chat")
    assert again.full("Why?", "Because.") == template.full("Why?", "Because.")
    assert again.prompt_ids("Why?") == template.prompt_ids("Why?")
