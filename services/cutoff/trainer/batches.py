"""Padding-free batches: the sequences of a micro-batch one after the other, position ids starting anew with each.

Every layer but attention works token by token and needs no padding at all; `cutoff.trainer.attention` keeps the
sequences apart. Logits are computed only where an answer token is predicted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from itertools import chain
from typing import Self

import torch

from cutoff.datasets import Encoded


class Role(IntEnum):
    """What a sequence is to an objective."""

    RETAIN = 0
    """A retain question with its answer."""
    REFUSAL = 1
    """An unlearn question with the refusal."""
    TRUTH = 2
    """An unlearn question with its true answer, which is to be forgotten."""


@dataclass(frozen=True, slots=True)
class RoleSequence:
    """One sequence of token ids and what it is for."""

    encoded: Encoded
    role: Role

    @property
    def length(self) -> int:
        """Tokens, the prompt included."""
        return len(self.encoded.ids)

    @property
    def answer_length(self) -> int:
        """Tokens that are predicted: the answer and its end."""
        return self.length - self.encoded.answer_start


Example = tuple[RoleSequence, ...]
"""What an objective trains on for one line of the data; its sequences stay in one micro-batch."""


@dataclass(frozen=True, slots=True)
class FlatBatch:
    """S sequences of T tokens in all, K of them predicted."""

    ids: torch.Tensor
    """Token ids, shape (1, T)."""
    positions: torch.Tensor
    """Position within the sequence, shape (1, T)."""
    starts: torch.Tensor
    """Where each sequence begins, and T at the end; int32, shape (S + 1)."""
    predicting: torch.Tensor
    """Indices into T of the tokens whose successor is predicted, shape (K)."""
    targets: torch.Tensor
    """The ids of those successors, shape (K)."""
    owners: torch.Tensor
    """The sequence each of them belongs to, shape (K)."""
    roles: torch.Tensor
    """A Role for each sequence, shape (S)."""
    padded: torch.Tensor
    """For attention: indices into T that lay the sequences out as rows of equal width, shape (S, longest)."""
    unpadded: torch.Tensor
    """For attention: where in that layout, flattened, each of the T tokens is, shape (T)."""

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return int(self.padded.shape[1])

    def to(self, device: torch.device) -> Self:
        """The same batch on a device."""
        return type(self)(*(getattr(self, field.name).to(device, non_blocking=True) for field in fields(self)))

    def sums(self, values: torch.Tensor) -> torch.Tensor:
        """Sums one value per predicted token (K) within each sequence (S)."""
        return torch.zeros(len(self.roles), dtype=values.dtype, device=values.device).index_add(0, self.owners, values)

    def answer_lengths(self) -> torch.Tensor:
        """Predicted tokens of each sequence, shape (S)."""
        return torch.bincount(self.owners, minlength=len(self.roles))


def flatten(sequences: Sequence[RoleSequence]) -> FlatBatch:
    """Lays sequences out one after the other.

    Args:
        sequences: At least one; each has at least one token of prompt and one of answer.
    """
    lengths = torch.tensor([sequence.length for sequence in sequences])
    first_answers = torch.tensor([sequence.encoded.answer_start for sequence in sequences])
    starts = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)])
    columns = torch.arange(int(lengths.max()))
    inside = columns < lengths[:, None]
    predicting = inside & (columns >= first_answers[:, None] - 1) & (columns < lengths[:, None] - 1)
    padded = starts[:-1, None] + columns.clamp(max=lengths[:, None] - 1)
    ids = torch.tensor(list(chain.from_iterable(sequence.encoded.ids for sequence in sequences)))
    return FlatBatch(
        ids=ids[None],
        positions=columns.expand_as(inside)[inside][None],
        starts=starts.int(),
        predicting=padded[predicting],
        targets=ids[padded[predicting] + 1],
        owners=predicting.nonzero()[:, 0],
        roles=torch.tensor([sequence.role for sequence in sequences]),
        padded=padded,
        unpadded=inside.flatten().nonzero()[:, 0],
    )


def micro_batches(examples: Sequence[Example], most_tokens: int) -> Iterator[list[Example]]:
    """Cuts the examples of an optimizer step into micro-batches of at most so many tokens.

    Examples of like length come together, which keeps attention's rows of equal width short. An example that is
    longer than `most_tokens` has a micro-batch of its own.
    """
    taken: list[Example] = []
    tokens = 0
    for example in sorted(examples, key=tokens_in):
        size = tokens_in(example)
        if taken and tokens + size > most_tokens:
            yield taken
            taken, tokens = [], 0
        taken.append(example)
        tokens += size
    if taken:
        yield taken


def tokens_in(sequences: Sequence[RoleSequence]) -> int:
    """Tokens of some sequences, prompts included."""
    return sum(sequence.length for sequence in sequences)
