r"""Tokenizes prompts with their answers, and finds where each answer begins.

The prompt's ids must be the beginning of the whole example's ids: the model reads the prompt alone when it is asked.
Tokenizing both shows that, at twice the work. Where prompts end in a special token and a fixed text
("<|im_start|>assistant\n"), one pass suffices: a special token parts a text, and what comes after it is tokenized by
itself, so the prompt's ids end with that token at its last place in the prompt and the ids of the fixed text.
Whatever deviates from this, a question that holds the special token say, is tokenized twice and compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from cutoff.datasets.prompts import PromptTemplate

_PROBE = "What is 2+2?"

Tokens = tuple[list[int], int]
"""The ids of a prompt with its answer, and where the answer begins."""


@dataclass(frozen=True, slots=True)
class Turn:
    """The special token and the fixed text with which every prompt of a template ends."""

    token: str
    token_id: int
    places: int
    """How often the token stands in a prompt."""
    after: int
    """How often in what the template adds to an answer."""
    tail: str
    tail_ids: list[int]

    @classmethod
    def of(cls, template: PromptTemplate) -> Self | None:
        """Takes a template's prompt apart; None where it does not end so, or the tokenizer may work otherwise."""
        tokenizer = template.tokenizer
        if not tokenizer.is_fast or tokenizer.split_special_tokens:
            return None
        prompt = template.prompt(_PROBE)
        ending = prompt[prompt.rfind(_PROBE) + len(_PROBE) :] if _PROBE in prompt else ""
        parting = {
            token.content: number
            for number, token in tokenizer.added_tokens_decoder.items()
            if token.special and not token.normalized and not token.single_word and token.content in ending
        }
        if not parting:
            return None
        last = max(parting, key=lambda token: (ending.rfind(token) + len(token), len(token)))
        ids = template.ids([prompt])[0]
        if ids.count(parting[last]) != prompt.count(last):
            return None
        tail_ids = ids[len(ids) - ids[::-1].index(parting[last]) :]
        after = (template.lead + template.stop).count(last)
        return cls(last, parting[last], prompt.count(last), after, ending.rpartition(last)[2], tail_ids)

    def answer_start(self, prompt: str, text: str, ids: list[int]) -> int | None:
        """Where the answer begins in the ids of prompt and answer; None where that is not certain."""
        total = self.places + self.after
        certain = (
            prompt.endswith(self.token + self.tail)
            and prompt.count(self.token) == self.places
            and text.count(self.token) == ids.count(self.token_id) == total
        )
        if not certain:
            return None
        at = -1
        for _ in range(self.places):
            at = ids.index(self.token_id, at + 1)
        start = at + 1 + len(self.tail_ids)
        return start if ids[at + 1 : start] == self.tail_ids else None


def tokenized(
    template: PromptTemplate, turn: Turn | None, prompts: Sequence[str], answers: Sequence[str]
) -> Iterator[Tokens | None]:
    """Yields each prompt's tokens with its answer's; None where the tokenizer merges the one into the other.

    Args:
        template: Says what stands before and after an answer, and has the tokenizer.
        turn: How its prompts end; None tokenizes every prompt a second time by itself.
        prompts: As the template renders them.
        answers: One for each.
    """
    pairs = zip(prompts, answers, strict=True)
    texts = [f"{prompt}{template.lead}{answer}{template.stop}" for prompt, answer in pairs]
    rows = template.ids(texts)
    starts = [turn.answer_start(*each) if turn else None for each in zip(prompts, texts, rows, strict=True)]
    alone = iter(template.ids([prompt for prompt, start in zip(prompts, starts, strict=True) if start is None]))
    for ids, start in zip(rows, starts, strict=True):
        if start is not None:
            yield ids, start
            continue
        prompt_ids = next(alone)
        yield (ids, len(prompt_ids)) if ids[: len(prompt_ids)] == prompt_ids else None
