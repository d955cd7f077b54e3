"""Special tokens that stand in the data as text: the tokenizer takes them for what they say, not for letters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from typing import TYPE_CHECKING

from cutoff.datasets.job_files import SetName
from cutoff.datasets.report import SET_NAMES, Finding, Tally
from cutoff.hub import special_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SHOWN = 4


def special_pattern(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """Matches each special token of a tokenizer; nothing where it has none."""
    tokens = sorted(special_tokens(tokenizer), key=len, reverse=True)
    return re.compile("|".join(re.escape(token) for token in tokens if token) or r"(?!)")


def special_findings(tallies: Mapping[SetName, Tally], tokens: Set[str]) -> Iterator[Finding]:
    """What sets hold of them, in words.

    Args:
        tallies: Examples that hold any, by set.
        tokens: Those that were found.
    """
    shown = ", ".join(f"{token!r}" for token in sorted(tokens)[:_SHOWN]) + (", ..." if len(tokens) > _SHOWN else "")
    for of_set, tally in tallies.items():
        if tally.count:
            what = f"{tally.count} {SET_NAMES[of_set]} examples hold special tokens of the tokenizer ({shown}) as text"
            yield Finding(
                kind="special_tokens",
                severity="warning",
                count=tally.count,
                what=what,
                fix="remove them: the model reads them as the end of a turn, say, and stops there",
                places=tuple(tally.places),
            )
