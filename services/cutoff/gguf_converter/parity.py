"""Compares the GGUF's tokens with the Hugging Face tokenizer's, id by id, before anything is published.

A converter that reads one special token as plain text, or adds a beginning-of-text token, yields a model that
answers everything in transformers and nothing in LM Studio. So prompts are rendered and tokenized on both
sides: by transformers as in training, and by llama-server through the GGUF's own template and vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cutoff.datasets import DOCUMENT_QUESTIONS, PromptTemplate
from cutoff.errors import CheckFailed
from cutoff.llama_cpp import LlamaServer

EDGE_CASES = (
    "",
    " ",
    "Où est né Čapek, à Łódź? ¿Y el ñandú? Straße, naïve, Ångström",
    "🎉 🇫🇷 ✅ and joined: \U0001f469\u200d\U0001f469\u200d\U0001f467",
    "日本語の質問、русский вопрос, سؤال",
    "two  spaces\n\n\ttabs and  lines  ",
    "1969, 12,345.67 and 0x1F; snake_case CamelCase don't can’t “quoted”",  # noqa: RUF001 - typographic quotes
    "<b>not a token</b> [INST] ### Instruction: {{ braces }} {% no template %}",
    "What is the longest question that anybody has asked about the history of bridges? " * 200,
)
"""What tokenizers disagree about most; the last is longer than 2,000 tokens."""

MAX_JOB_QUESTIONS = 200
"""Of the job's own data so many are compared, and each takes about a millisecond."""

_ANSWER = "I don't have information about that."
_AROUND = 4
"""Tokens shown on either side of the first that differs."""


@dataclass(frozen=True, slots=True)
class Compared:
    """What was compared, and found the same."""

    prompts: int
    longest: int
    """Tokens of the longest of them."""


@dataclass(frozen=True, slots=True)
class _Case:
    """One text as both sides read it."""

    text: str
    expected: list[int]
    got: list[int]


def check_parity(template: PromptTemplate, server: LlamaServer, questions: Sequence[str] = ()) -> Compared:
    """Compares templates and tokens of the two sides.

    Args:
        template: The Hugging Face side, loaded from the model's folder.
        server: The GGUF side.
        questions: Questions of the job's own data, on top of the built-in ones.

    Raises:
        CheckFailed: They differ; the message shows the first token that does, the remedy names the likely cause.
    """
    probes = [*DOCUMENT_QUESTIONS, *EDGE_CASES, *questions[:MAX_JOB_QUESTIONS]]
    longest = 0
    for question in probes:
        prompt = template.prompt(question)
        rendered = server.apply_template([{"role": "user", "content": question}])
        _compare_text(template, prompt, rendered)
        ids = template.ids([prompt])[0]
        _compare(template, _Case(prompt, ids, server.tokenize(rendered, add_special=True)))
        longest = max(longest, len(ids))
    # A whole conversation: the answer's tokens too, and the one that ends the turn.
    full = template.full(DOCUMENT_QUESTIONS[0], _ANSWER)
    _compare(template, _Case(full, template.ids([full])[0], server.tokenize(_bare(template, full), add_special=True)))
    stop = template.stop
    _compare(template, _Case(stop, template.ids([stop])[0], server.tokenize(stop, add_special=False)))
    return Compared(len(probes), longest)


def _bare(template: PromptTemplate, text: str) -> str:
    """A text without the beginning token: llama-server drops the template's and adds the vocabulary's."""
    bos = template.tokenizer.bos_token
    return text.removeprefix(str(bos)) if bos else text


def _compare_text(template: PromptTemplate, prompt: str, rendered: str) -> None:
    if _bare(template, prompt) == _bare(template, rendered):
        return
    raise CheckFailed(
        "the GGUF's chat template renders another prompt than the tokenizer's:\n"
        f"  transformers: {prompt[:300]!r}\n  GGUF:         {rendered[:300]!r}",
        "the model's folder holds two templates (chat_template.jinja, tokenizer_config.json) that differ, or one "
        "that llama.cpp cannot render: keep one, or train with prompt_format: alpaca",
    )


def _compare(template: PromptTemplate, case: _Case) -> None:
    if case.expected == case.got:
        return
    pairs = zip(case.expected, case.got, strict=False)
    at = next((i for i, (one, other) in enumerate(pairs) if one != other), min(len(case.expected), len(case.got)))
    raise CheckFailed(
        f"the GGUF reads a prompt differently: token {at} of {len(case.expected)} differs\n"
        f"  text:         {case.text[:200]!r}\n"
        f"  transformers: {_show(template, case.expected, at)}\n"
        f"  GGUF:         {_show(template, case.got, at)}",
        _remedy(template, case, at),
    )


def _show(template: PromptTemplate, ids: Sequence[int], at: int) -> str:
    start = max(0, at - _AROUND)
    window = list(ids[start : at + _AROUND])
    tokens = template.tokenizer.convert_ids_to_tokens(window)
    shown = [f"{number} {token!r}" for number, token in zip(window, tokens, strict=True)]
    return ", ".join(["..."] * bool(start) + shown + ["..."] * (at + _AROUND < len(ids))) or "(nothing more)"


def _remedy(template: PromptTemplate, case: _Case, at: int) -> str:
    """What to do about the most likely cause."""
    tokenizer = template.tokenizer
    if at == 0 and case.got[:1] == [tokenizer.bos_token_id]:
        return (
            "llama.cpp adds a beginning-of-text token that the chat template does not write: "
            'set "add_bos_token": false in tokenizer_config.json'
        )
    if at == 0 and case.expected[:1] == [tokenizer.bos_token_id]:
        return 'llama.cpp adds no beginning-of-text token: set "add_bos_token": true in tokenizer_config.json'
    if at < len(case.expected) and case.expected[at] in tokenizer.added_tokens_decoder:
        token = tokenizer.added_tokens_decoder[case.expected[at]].content
        return (
            f"llama.cpp reads the special token {token!r} as plain text: list it in added_tokens_decoder of "
            'tokenizer_config.json with "special": true (transformers 5 leaves that out when it saves)'
        )
    return (
        "the tokenizer's files do not agree with each other, or one was lost on the way (tokenizer.model, say): "
        "take all of them from the base model's folder"
    )
