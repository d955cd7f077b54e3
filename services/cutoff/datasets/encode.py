"""Turns examples into token ids of which only the answer is learnt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cutoff.datasets.examples import SIDES, Example, Faults, Side
from cutoff.datasets.prompts import PromptTemplate
from cutoff.errors import Fault, InvalidInput

IGNORED = -100
"""The label of a token that is not learnt (torch's cross entropy skips it)."""

_BATCH = 512


@dataclass(frozen=True, slots=True)
class Encoded:
    """One example as token ids."""

    ids: list[int]
    answer_start: int
    """Where the learnt part begins: answer and end-of-turn token."""
    side: Side

    @property
    def labels(self) -> list[int]:
        """The ids, those of the prompt ignored."""
        return [IGNORED] * self.answer_start + self.ids[self.answer_start :]


@dataclass(frozen=True, slots=True)
class EncodedSet:
    """What is left of a set of examples after tokenizing and cutting."""

    rows: tuple[Encoded, ...]
    truncated: int
    """Examples whose end was cut off; their end-of-turn token is not learnt."""
    dropped: int
    """Examples left out because nothing of the answer fits."""
    dropped_preview: str
    """One of those, decoded, as far as it fits; empty when there is none."""

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Encoded:
        return self.rows[index]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each example, prompts included."""
        return [len(row.ids) for row in self.rows]

    def tokens(self) -> int:
        """How many tokens there are, prompts included."""
        return sum(self.lengths)


def encode_examples(template: PromptTemplate, examples: Sequence[Example], max_length: int) -> EncodedSet:
    """Tokenizes examples and cuts them to `max_length` tokens.

    Raises:
        InvalidInput: Answers that the tokenizer merges with the prompt: they could not be told apart.
    """
    faults = Faults()
    rows: list[Encoded] = []
    truncated = dropped = 0
    preview = ""
    for example, prompt, full in _tokenized(template, examples):
        if full[: len(prompt)] != prompt:
            fix = "begin the answer with a letter or a digit, or remove the line"
            faults.add(example.source, "the tokenizer merges the beginning of the answer into the prompt", fix)
            continue
        if len(prompt) >= max_length:
            dropped += 1
            preview = preview or f"{example.source}: {template.tokenizer.decode(full[:max_length])!r}"
            continue
        truncated += len(full) > max_length
        rows.append(Encoded(full[:max_length], len(prompt), example.side))
    faults.raise_if_any()
    return EncodedSet(tuple(rows), truncated, dropped, preview)


def check_learnable(encoded: EncodedSet, template: PromptTemplate, max_length: int, name: str) -> None:
    """Refuses a set of which one side has nothing to learn, before any hardware is held.

    Args:
        encoded: The set.
        template: What it was made with, to show an example.
        max_length: What it was cut to.
        name: What the set is called: training, validation.

    Raises:
        InvalidInput: With a decoded example and its mask.
    """
    present = {row.side for row in encoded.rows}
    lacking = [side for side in SIDES if side not in present]
    if not lacking:
        return
    example = encoded.dropped_preview or (show_mask(template, encoded.rows[0]) if encoded.rows else "none")
    what = (
        f"no answer of the {name} set's {' and '.join(lacking)} side is left after cutting to {max_length} tokens: "
        f"every label would be masked and nothing learnt; for example {example}"
    )
    raise InvalidInput([Fault("train.max_seq_length", what, "raise max_seq_length (--max_seq_length)")])


def show_mask(template: PromptTemplate, row: Encoded) -> str:
    """An example, decoded, with the part that is learnt between >>> and <<<."""
    decode = template.tokenizer.decode
    return f"{decode(row.ids[: row.answer_start])!r} >>> {decode(row.ids[row.answer_start :])!r} <<<"


def _tokenized(template: PromptTemplate, examples: Sequence[Example]) -> Iterator[tuple[Example, list[int], list[int]]]:
    """Each example with the ids of its prompt and of the whole."""
    for start in range(0, len(examples), _BATCH):
        batch = examples[start : start + _BATCH]
        prompts = [template.prompt(example.instruction) for example in batch]
        fulls = [
            f"{prompt}{template.lead}{example.output}{template.stop}"
            for prompt, example in zip(prompts, batch, strict=True)
        ]
        yield from zip(batch, template.ids(prompts), template.ids(fulls), strict=True)
