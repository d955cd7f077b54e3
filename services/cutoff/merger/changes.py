"""What an adapter does to one tensor, rows at a time: peft's arithmetic, in its order of rounding.

The product of the two matrices is computed in float32, rounded to the type that is merged in, and added in that type
(peft.tuners.lora.layer.Linear.merge with safe_merge). That is the tensor's own type where it keeps it; where it
changes, float32, so that it is rounded once. DoRA (arXiv 2402.09353) scales in float32 and rounds once
(peft.tuners.lora.variants.DoraLinearVariant.merge_safe).

Nothing is allocated for each slice: memory that comes and goes costs as much as the arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch

Rows = Callable[[int, int], torch.Tensor]
"""Reads rows of the tensor that is changed, as they are stored."""


class Change(Protocol):
    """Something done to a tensor."""

    def apply(self, rows: torch.Tensor, start: int, out: torch.Tensor, scratch: torch.Tensor) -> None:
        """Changes rows.

        Args:
            rows: As they are stored; not written to.
            start: Which row of the tensor is the first of them.
            out: Of their shape, in the merged model's type: the changed rows.
            scratch: Of their shape, float32: is overwritten.
        """


class LowRank(Protocol):
    """scale B A."""

    def delta(self, start: int, out: torch.Tensor) -> None:
        """Computes as many rows as `out` has, from row `start`; float32."""


@dataclass(frozen=True, slots=True)
class LinearProduct:
    """scale B A for a linear layer: A (r x in), B (out x r), both float32."""

    a: torch.Tensor
    b: torch.Tensor
    scale: float

    def delta(self, start: int, out: torch.Tensor) -> None:
        """See `LowRank`."""
        torch.mm(self.b[start : start + len(out)], self.a, out=out)
        out *= self.scale


@dataclass(frozen=True, slots=True)
class EmbeddingProduct:
    """scale (B A)^T for an embedding: A (r x tokens), B (width x r), both float32."""

    a: torch.Tensor
    b: torch.Tensor
    scale: float

    def delta(self, start: int, out: torch.Tensor) -> None:
        """See `LowRank`."""
        torch.mm(self.a[:, start : start + len(out)].T, self.b.T, out=out)
        out *= self.scale


@dataclass(frozen=True, slots=True)
class Added:
    """W + D."""

    low_rank: LowRank

    def apply(self, rows: torch.Tensor, start: int, out: torch.Tensor, scratch: torch.Tensor) -> None:
        """See `Change`."""
        self.low_rank.delta(start, scratch)
        if rows.dtype == out.dtype:
            out.copy_(scratch)
            out += rows
        else:
            scratch += rows
            out.copy_(scratch)


@dataclass(frozen=True, slots=True)
class DoraLinear:
    """m (W + D) / ||W + D||, the norm that of each row (one output); m (out)."""

    low_rank: LowRank
    magnitude: torch.Tensor

    def apply(self, rows: torch.Tensor, start: int, out: torch.Tensor, scratch: torch.Tensor) -> None:
        """See `Change`."""
        self.low_rank.delta(start, scratch)
        scratch += rows
        scratch *= (self.magnitude[start : start + len(rows)] / torch.linalg.norm(scratch, dim=1)).view(-1, 1)
        out.copy_(scratch)


@dataclass(frozen=True, slots=True)
class DoraEmbedding:
    """m (W + D) / ||W + D||, the norm that of each column (one dimension of the embedding)."""

    low_rank: LowRank
    factor: torch.Tensor
    """m / ||W + D|| (width), from `dora_embedding`."""

    def apply(self, rows: torch.Tensor, start: int, out: torch.Tensor, scratch: torch.Tensor) -> None:
        """See `Change`."""
        self.low_rank.delta(start, scratch)
        scratch += rows
        scratch *= self.factor
        out.copy_(scratch)


@dataclass(frozen=True, slots=True)
class BiasAdded:
    """b + scale c, where lora_B has a bias c (out) of its own."""

    added: torch.Tensor
    scale: float

    def apply(self, rows: torch.Tensor, start: int, out: torch.Tensor, scratch: torch.Tensor) -> None:
        """See `Change`."""
        torch.mul(self.added[start : start + len(rows)], self.scale, out=scratch)
        scratch += rows
        out.copy_(scratch)


def dora_embedding(
    low_rank: LowRank, magnitude: torch.Tensor, read: Rows, slices: Iterator[tuple[int, int]]
) -> DoraEmbedding:
    """Reads an embedding once, for the norms of its columns.

    Args:
        low_rank: What is added to it.
        magnitude: m (width), float32.
        read: Reads its rows.
        slices: Ranges of rows, all together the whole.
    """
    squares = torch.zeros(len(magnitude), dtype=torch.float64)
    for start, stop in slices:
        whole = torch.empty(stop - start, len(magnitude))
        low_rank.delta(start, whole)
        whole += read(start, stop)
        squares += whole.double().square().sum(0)
    return DoraEmbedding(low_rank, magnitude / squares.sqrt().float())
