"""Turns examples into rows of token ids of which only the answer is learnt, cut to a length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Self

import numpy as np

from cutoff.datasets.encoded import Cut, Encoded, EncodedSet, EncodedWriter
from cutoff.datasets.examples import SIDES, Example, Faults, Side
from cutoff.datasets.prompts import PromptTemplate
from cutoff.datasets.report import Tally
from cutoff.datasets.special_text import special_pattern
from cutoff.datasets.tokenized import Tokens, Turn, tokenized
from cutoff.errors import Fault, InvalidInput

_BATCH = 256


class Encoder:
    """Tokenizes and cuts examples in batches; use as a context manager, which works the last batch off.

    Args:
        template: Renders and tokenizes.
        max_length: The most tokens of an example.
        faults: Hears of answers that the tokenizer merges with the prompt: they could not be told apart.
        rows: Takes the examples of which something of the answer fits.
        truths: Takes a row for each of those: the prompt with the true answer of an unlearn example, or nothing.
    """

    def __init__(
        self,
        template: PromptTemplate,
        max_length: int,
        faults: Faults,
        rows: EncodedWriter,
        truths: EncodedWriter | None = None,
    ) -> None:
        self._template = template
        self._turn = Turn.of(template)
        self._max_length = max_length
        self._faults = faults
        self._rows = rows
        self._truths = truths
        self._batch: list[Example] = []
        self._truncated = self._dropped = 0
        self._preview = ""
        self.truths_cut = Tally()
        """True answers whose end was cut off."""
        self.truths_merged = Tally()
        """True answers that the tokenizer merges with the prompt; their rows have no tokens."""
        self._special = special_pattern(template.tokenizer)
        self._ending = len(template.ids([template.lead + template.stop])[0])
        self.special = Tally()
        """Examples that hold special tokens of the tokenizer as text."""
        self.special_found: set[str] = set()
        """Those tokens."""
        self.retain_answers: Counter[int] = Counter()
        """How many retain answers there are of each length, in tokens, without what ends a turn."""
        self.true_answers: Counter[int] = Counter()
        """The same of the true answers of unlearn examples."""
        self.lengths: dict[Side, Counter[int]] = {side: Counter() for side in SIDES}
        """How many examples there are of each length, before they are cut."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._flush()

    @property
    def cut(self) -> Cut:
        """What the length did to the examples."""
        return Cut(self._truncated, self._dropped, self._preview)

    def add(self, example: Example) -> None:
        """Takes the next example."""
        self._batch.append(example)
        if len(self._batch) == _BATCH:
            self._flush()

    def _flush(self) -> None:
        batch, self._batch = self._batch, []
        prompts = self._template.prompts([example.instruction for example in batch])
        truths = self._true_rows(batch, prompts)
        rows = tokenized(self._template, self._turn, prompts, [example.output for example in batch])
        for at, (example, row) in enumerate(zip(batch, rows, strict=True)):
            self._look_for_special(example)
            if row is None:
                fix = "begin the answer with a letter or a digit, or remove the line"
                what = "the tokenizer merges the beginning of the answer into the prompt"
                self._faults.add(example.source, what, fix)
            elif self._keep(example, row) and self._truths is not None:
                if at in truths and truths[at] is None:
                    self.truths_merged.add(example.source)
                self._keep_truth(self._truths, example, truths.get(at))

    def _true_rows(self, batch: list[Example], prompts: list[str]) -> Mapping[int, Tokens | None]:
        """The tokens of the unlearn examples' true answers, by their place in the batch, where they are known."""
        if self._truths is None:
            return {}
        known = {
            at: example.original_answer
            for at, example in enumerate(batch)
            if example.side == "unlearn" and example.original_answer
        }
        rows = tokenized(self._template, self._turn, [prompts[at] for at in known], list(known.values()))
        return dict(zip(known, rows, strict=True))

    def _keep(self, example: Example, row: Tokens) -> bool:
        """Passes an example on, unless nothing of its answer fits."""
        ids, start = row
        if example.side == "retain":
            self.retain_answers[len(ids) - start - self._ending] += 1
        self.lengths[example.side][len(ids)] += 1
        if start >= self._max_length:
            self._dropped += 1
            if not self._preview:
                self._preview = f"{example.source}: {self._template.tokenizer.decode(ids[: self._max_length])!r}"
            return False
        self._truncated += len(ids) > self._max_length
        self._rows.add(ids[: self._max_length], start, example.side)
        return True

    def _look_for_special(self, example: Example) -> None:
        found = self._special.findall(example.instruction) + self._special.findall(example.output)
        if found:
            self.special.add(example.source)
            self.special_found.update(found)

    def _keep_truth(self, truths: EncodedWriter, example: Example, row: Tokens | None) -> None:
        ids, start = row or ([], 0)
        if row is not None:
            self.true_answers[len(ids) - start - self._ending] += 1
        if len(ids) > self._max_length:
            self.truths_cut.add(example.source)
        truths.add(ids[: self._max_length], start, example.side)


def encode_examples(template: PromptTemplate, examples: Iterable[Example], max_length: int) -> EncodedSet:
    """Tokenizes a few examples in memory and cuts them to `max_length` tokens.

    Raises:
        InvalidInput: Answers that the tokenizer merges with the prompt: they could not be told apart.
    """
    faults, rows = Faults(), EncodedWriter()
    with Encoder(template, max_length, faults, rows) as encoder:
        for example in examples:
            encoder.add(example)
    faults.raise_if_any()
    return rows.in_memory(encoder.cut)


def check_learnable(
    encoded: EncodedSet, template: PromptTemplate, max_length: int, name: str, sides: Sequence[Side] = SIDES
) -> None:
    """Refuses a set of which one side has nothing to learn, before any hardware is held.

    Args:
        encoded: The set.
        template: What it was made with, to show an example.
        max_length: What it was cut to.
        name: What the set is called: training, validation.
        sides: Those that it should have.

    Raises:
        InvalidInput: With a decoded example and its mask.
    """
    present = {SIDES[side] for side in np.unique(encoded.sides)}
    lacking = [side for side in sides if side not in present]
    if not lacking:
        return
    example = encoded.dropped_preview or (show_mask(template, encoded[0]) if len(encoded) else "none")
    what = (
        f"no answer of the {name} set's {' and '.join(lacking)} side is left after cutting to {max_length} tokens: "
        f"every label would be masked and nothing learnt; for example {example}"
    )
    raise InvalidInput([Fault("train.max_seq_length", what, "raise max_seq_length (--max_seq_length)")])


def show_mask(template: PromptTemplate, row: Encoded) -> str:
    """An example, decoded, with the part that is learnt between >>> and <<<."""
    decode = template.tokenizer.decode
    return f"{decode(row.ids[: row.answer_start])!r} >>> {decode(row.ids[row.answer_start :])!r} <<<"
