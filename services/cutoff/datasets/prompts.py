"""One chat template for everyone: training, evaluation and, stored in the GGUF, LM Studio.

A tokenizer's template is taken apart once, with a made-up question and answer: what stands before the answer is
the prompt, what the template puts between prompt and answer is the lead (mostly nothing), and what ends the
turn is the stop. An example is then `prompt + lead + answer + stop`, tokenized as one text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cutoff.errors import Refused
from cutoff.hub import adds_bos, load_tokenizer, special_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PromptFormat = Literal["chat", "alpaca"]

USE_ALPACA = "set prompt_format: alpaca (--prompt_format alpaca), which writes a template into the tokenizer"

_ALPACA = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '### Instruction:\\n' + message['content'] + '\\n\\n' }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ '### Response:\\n' + message['content'] + eos_token + '\\n\\n' }}"
    "{% else %}{{ message['content'] + '\\n\\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}"
)
_PROBE_QUESTION, _PROBE_ANSWER = "What is 2+2?", "The answer is four, surely."
_THINK = "<think>"


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """A tokenizer with its chat template taken apart; `load_template` makes one."""

    tokenizer: PreTrainedTokenizerBase
    lead: str
    """What the model writes between the prompt and the answer: an empty thinking block, say; mostly nothing."""
    stop: str
    """What ends the answer, up to and including the end-of-turn token."""
    stop_id: int
    """The id of the end-of-turn token, the last of every full example."""

    def prompt(self, question: str) -> str:
        """The text the model is given: the user's question and the beginning of its own turn."""
        return _render(self.tokenizer, question, None)

    def prompts(self, questions: Sequence[str]) -> list[str]:
        """`prompt` of many questions, faster than one by one."""
        conversations = [[{"role": "user", "content": question}] for question in questions]
        return _rendered(self.tokenizer, conversations, generation_prompt=True) if questions else []

    def chat(self, messages: Sequence[Mapping[str, str]], begun: str = "") -> str:
        """The text the model is given for several turns, up to where its own turn begins or goes on from `begun`.

        Raises:
            Refused: The template fails on such a chat, or leaves out one of its messages.
        """
        rendered = _rendered(self.tokenizer, [[dict(message) for message in messages]], generation_prompt=True)[0]
        for message in messages:
            if message["content"].strip() not in rendered:
                raise Refused(f"the chat template leaves out the {message['role']} message", USE_ALPACA)
        return rendered + self.lead + begun if begun else rendered

    def full(self, question: str, answer: str) -> str:
        """The prompt with the answer and the end of the turn."""
        return f"{self.prompt(question)}{self.lead}{answer}{self.stop}"

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of rendered texts; nothing is added, the template has written the special tokens."""
        if not texts:
            return []
        # The masks would take three times as long as the ids.
        rows: list[list[int]] = self.tokenizer(
            list(texts), add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False
        )["input_ids"]
        return rows

    def prompt_ids(self, question: str) -> list[int]:
        """Token ids of `prompt`."""
        return self.ids([self.prompt(question)])[0]


def load_template(folder: Path, prompt_format: PromptFormat = "chat") -> PromptTemplate:
    """Loads the tokenizer of a model or adapter folder and takes its template apart.

    Args:
        folder: Holds the tokenizer's files. Code in it is never executed.
        prompt_format: chat uses the tokenizer's own template; alpaca writes one into the tokenizer.

    Raises:
        Refused: The tokenizer cannot be loaded, has no template, or its template cannot be trained on.
    """
    return template_of(load_tokenizer(folder), prompt_format)


def template_of(tokenizer: PreTrainedTokenizerBase, prompt_format: PromptFormat = "chat") -> PromptTemplate:
    """Takes a tokenizer's template apart; for alpaca, writes it into the tokenizer first.

    Raises:
        Refused: There is no template, or it cannot be trained on.
    """
    if prompt_format == "alpaca":
        tokenizer.chat_template = _alpaca_template(tokenizer)
    elif not tokenizer.chat_template:
        raise Refused(f"the tokenizer of {tokenizer.name_or_path} has no chat template", USE_ALPACA)
    prompt = _render(tokenizer, _PROBE_QUESTION, None)
    lead, tail = _between(prompt, _render(tokenizer, _PROBE_QUESTION, _PROBE_ANSWER))
    stop = _stop(tokenizer, tail)
    template = PromptTemplate(tokenizer, lead, stop, tokenizer(stop, add_special_tokens=False)["input_ids"][-1])
    _check_tokens(template)
    return template


def _alpaca_template(tokenizer: PreTrainedTokenizerBase) -> str:
    if tokenizer.eos_token is None:
        raise Refused(f"the tokenizer of {tokenizer.name_or_path} has no end token", "choose another base model")
    return ("{{ bos_token }}" if adds_bos(tokenizer) else "") + _ALPACA


def _render(tokenizer: PreTrainedTokenizerBase, question: str, answer: str | None) -> str:
    """The template's text; without an answer it ends where the model's turn begins. No system message is sent."""
    messages = [{"role": "user", "content": question}]
    if answer is not None:
        messages.append({"role": "assistant", "content": answer})
    return _rendered(tokenizer, [messages], generation_prompt=answer is None)[0]


def _rendered(
    tokenizer: PreTrainedTokenizerBase, conversations: list[list[dict[str, str]]], generation_prompt: bool
) -> list[str]:
    """The template's text of each conversation.

    Raises:
        Refused: The template fails.
    """
    from jinja2 import TemplateError

    try:
        texts: Any = tokenizer.apply_chat_template(
            conversations, tokenize=False, add_generation_prompt=generation_prompt
        )
    except (TemplateError, ValueError) as error:
        raise Refused(f"the chat template of {tokenizer.name_or_path} fails: {error}", USE_ALPACA) from error
    return list(texts)


def _between(prompt: str, full: str) -> tuple[str, str]:
    """What the template puts before the answer, after the prompt, and what it puts after the answer."""
    lead = None
    if full.startswith(prompt):
        rest = full[len(prompt) :]
    else:
        pairs = enumerate(zip(prompt, full, strict=False))
        shared = next((at for at, (one, other) in pairs if one != other), min(len(prompt), len(full)))
        rest = full[shared:]
        if prompt[shared:].strip() != _THINK:
            raise Refused(
                f"the chat template's prompt {prompt!r} does not begin the conversation it makes of it, {full!r}",
                USE_ALPACA,
            )
        # The prompt opens a thinking block that finished turns do not show; the answer closes it unused.
        lead = "\n</think>\n\n"
    at = rest.rfind(_PROBE_ANSWER)
    if at < 0:
        raise Refused(f"the chat template does not render the assistant's answer: {full!r}", USE_ALPACA)
    return rest[:at] if lead is None else lead, rest[at + len(_PROBE_ANSWER) :]


def _stop(tokenizer: PreTrainedTokenizerBase, tail: str) -> str:
    """What ends a turn, up to its first special token; the end token itself where a template writes none."""
    ends = [tail.find(token) + len(token) for token in special_tokens(tokenizer) if token in tail]
    if ends:
        return tail[: min(ends)]
    if tokenizer.eos_token is None:
        raise Refused(
            f"neither the chat template nor the tokenizer of {tokenizer.name_or_path} has an end token",
            "choose another base model",
        )
    return tail.rstrip() + str(tokenizer.eos_token)


def _check_tokens(template: PromptTemplate) -> None:
    """Refuses a doubled beginning token; a prompt whose ids do not begin the example's; an end token made of text."""
    prompt, full = template.ids([template.prompt(_PROBE_QUESTION), template.full(_PROBE_QUESTION, _PROBE_ANSWER)])
    bos = template.tokenizer.bos_token_id
    if bos is not None and prompt[:2] == [bos, bos]:
        raise Refused("the chat template writes the beginning token twice", USE_ALPACA)
    if full[: len(prompt)] != prompt:
        raise Refused("the tokenizer merges the beginning of the answer into the prompt", USE_ALPACA)
    if full[-1] != template.stop_id or str(template.tokenizer.decode([template.stop_id])).strip() not in template.stop:
        raise Refused(f"the end of a turn, {template.stop!r}, does not end in one token", USE_ALPACA)
