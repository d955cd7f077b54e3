"""Asks a GGUF through llama-server: whether it reads prompts as transformers does, and whether it answers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from cutoff.datasets import DOCUMENT_QUESTIONS, PromptTemplate
from cutoff.gguf_converter.checks import Check, Checks
from cutoff.gguf_converter.parity import check_parity
from cutoff.llama_cpp import LlamaCpp, LlamaServer, serve

_CONTEXT = 512
"""Tokens of the question and its answer; /tokenize takes any length."""

_ANSWER_TOKENS = 16
_SHOWN = 80


def check_tokens_and_answer(
    llama: LlamaCpp, gguf: Path, target: str, template: PromptTemplate, questions: Sequence[str], checks: Checks
) -> int:
    """Checks the 16-bit file, whose vocabulary and template all others take over.

    Returns:
        How many prompts were compared.

    Raises:
        CheckFailed: The tokens differ.
        ProgramFailed, OutOfMemory: llama-server cannot load the file, or died.
    """
    with ExitStack() as running:
        with checks.row("answer", target) as row:
            server = running.enter_context(serve(llama, gguf, _CONTEXT))
            _ask(row, server, questions)
        with checks.row("tokens") as row:
            compared = check_parity(template, server, questions)
            row.passed(f"{compared.prompts} prompts, the longest of {compared.longest} tokens", "the same ids")
    return compared.prompts


def check_answer(llama: LlamaCpp, gguf: Path, target: str, questions: Sequence[str], checks: Checks) -> None:
    """Loads a file and asks it one question.

    Raises:
        ProgramFailed, OutOfMemory: llama-server cannot load the file, or died.
    """
    with checks.row("answer", target) as row, serve(llama, gguf, _CONTEXT) as server:
        _ask(row, server, questions)


def _ask(row: Check, server: LlamaServer, questions: Sequence[str]) -> None:
    """The most likely answer to the first question; a model may have been taught to say nothing: that is a warning."""
    question = questions[0] if questions else DOCUMENT_QUESTIONS[0]
    answer = server.complete([{"role": "user", "content": question}], _ANSWER_TOKENS).text.strip()
    figure = f"{_short(question)!r} -> {_short(answer)!r}"
    if answer:
        row.passed(figure, "it loads and answers")
    else:
        row.warned(figure, "it loads, and says nothing")


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
