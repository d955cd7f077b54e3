"""Texts of a job's retain data, rendered as training sees them: what a converted model is measured on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cutoff.datasets.encoded import EncodedSet
from cutoff.datasets.examples import SIDES, Example
from cutoff.datasets.job_files import seeded
from cutoff.datasets.prompts import PromptTemplate

CALIBRATION_TOKENS = 32_768
"""Of the text for an importance matrix: 64 chunks of 512."""

VALIDATION_TOKENS = 2_150
"""Of the text for perplexity: four chunks of 512 and a little. It is read once for every file, which takes time."""

_RETAIN = SIDES.index("retain")


def text_of_rows(rows: Iterable[Sequence[int]], template: PromptTemplate, tokens: int) -> str:
    """Tokenized examples as one text, as many of them as it takes to reach a number of tokens."""
    texts: list[str] = []
    count = 0
    for ids in rows:
        if count >= tokens:
            break
        texts.append(str(template.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)))
        count += len(ids)
    return "\n".join(texts)


def text_of_examples(examples: Sequence[Example], template: PromptTemplate, tokens: int, seed: int) -> str:
    """The retain examples of a file in an order drawn with the seed, as one text of about so many tokens."""
    retain = [example for example in examples if example.side == "retain"]
    order = seeded(f"text-{seed}").sample(range(len(retain)), len(retain))
    rows = (template.ids([template.full(retain[at].instruction, retain[at].output)])[0] for at in order)
    return text_of_rows(rows, template, tokens)


def retain_text(sets: Sequence[EncodedSet], template: PromptTemplate, tokens: int, seed: int) -> str:
    """The retain examples of sets, each in an order drawn with the seed, as one text of about so many tokens.

    A later set is only read where the earlier ones hold too little.
    """
    return text_of_rows(_retain_rows(sets, seed), template, tokens)


def _retain_rows(sets: Sequence[EncodedSet], seed: int) -> Iterable[list[int]]:
    for number, encoded in enumerate(sets):
        rows = [at for at in range(len(encoded)) if encoded.sides[at] == _RETAIN]
        for at in seeded(f"text-{seed}-{number}").sample(rows, len(rows)):
            yield encoded[at].ids
