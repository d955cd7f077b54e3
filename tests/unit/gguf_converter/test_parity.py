import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cutoff.datasets import DOCUMENT_QUESTIONS, PromptTemplate, load_template
from cutoff.errors import CheckFailed
from cutoff.gguf_converter.parity import EDGE_CASES, check_parity
from cutoff.llama_cpp import LlamaCpp, LlamaServer, serve


@pytest.fixture(scope="module")
def server(llama: LlamaCpp, tiny_f16: Path) -> Iterator[LlamaServer]:
    with serve(llama, tiny_f16, 256, threads=1) as running:
        yield running


@pytest.fixture
def template(tiny_model: Path) -> PromptTemplate:
    return load_template(tiny_model)


def test_a_faithful_file_passes(template: PromptTemplate, server: LlamaServer) -> None:
    own = ["Qui a conçu le pont de Varlun ?", "¿Quién fue?"]
    assert check_parity(template, server, own).prompts == len(DOCUMENT_QUESTIONS) + len(EDGE_CASES) + len(own)


def test_another_template_is_shown_from_both_sides(template: PromptTemplate, server: LlamaServer) -> None:
    tokenizer = template.tokenizer
    tokenizer.chat_template = tokenizer.chat_template.replace("assistant\\n", "assistant: ")
    with pytest.raises(CheckFailed, match="renders another prompt") as caught:
        check_parity(template, server)
    assert "assistant: " in caught.value.message
    assert "chat_template.jinja" in caught.value.remedy


def test_one_question_that_tokenizes_differently_is_enough(
    template: PromptTemplate, server: LlamaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = server.tokenize

    def swapped(text: str, add_special: bool) -> list[int]:
        ids = honest(text, add_special)
        return [*ids[:5], ids[6], ids[5], *ids[7:]] if "needle" in text else ids

    monkeypatch.setattr(server, "tokenize", swapped)
    check_parity(template, server, ["hay"])
    with pytest.raises(CheckFailed, match="token 5 of"):
        check_parity(template, server, ["hay", "a needle"])


@pytest.mark.parametrize(("key", "value", "said"), [("add_bos_token", "bool:true", '"add_bos_token": false')])
def test_an_added_beginning_token_is_found(
    llama: LlamaCpp, tiny_f16: Path, template: PromptTemplate, tmp_path: Path, key: str, value: str, said: str
) -> None:
    spoilt = tmp_path / "spoilt.gguf"
    override = ["--override-kv", f"tokenizer.ggml.{key}={value}"]
    command = [str(llama.quantize), *override, str(tiny_f16), str(spoilt), "F16"]
    subprocess.run(command, check=True, capture_output=True)
    with serve(llama, spoilt, 256, threads=1) as running, pytest.raises(CheckFailed, match="token 0 of") as caught:
        check_parity(template, running)
    assert said in caught.value.remedy
    assert "'<s>'" in caught.value.message
