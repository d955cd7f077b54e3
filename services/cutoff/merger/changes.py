"""What an adapter does to one tensor, rows at a time: peft's arithmetic, in its order of rounding.

The product of the two matrices is computed in float32, rounded to the type that is merged in, and added in that type
(peft.tuners.lora.layer.Linear.merge with safe_merge). DoRA (arXiv 2402.09353) scales in float32 and rounds once
(peft.tuners.lora.variants.DoraLinearVariant.merge_safe).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch

Rows = Callable[[int, int], torch.Tensor]
"""Reads rows of the tensor that is changed, in the type that is merged in."""


class Change(Protocol):
    """Something done to a tensor."""

    def apply(self, rows: torch.Tensor, start: int) -> torch.Tensor:
        """The changed rows, the first of which is row `start`; the rows given may be overwritten."""


@dataclass(frozen=True, slots=True)
class LinearChange:
    """W + scale B A of a linear layer: A (r x in), B (out x r), both float32."""

    a: torch.Tensor
    b: torch.Tensor
    scale: float

    def delta(self, start: int, stop: int) -> torch.Tensor:
        """Rows of what is added: (stop - start) x in, float32."""
        return (self.b[start:stop] @ self.a).mul_(self.scale)

    def apply(self, rows: torch.Tensor, start: int) -> torch.Tensor:
        """See `Change`."""
        return rows + self.delta(start, start + len(rows)).to(rows.dtype)


@dataclass(frozen=True, slots=True)
class EmbeddingChange:
    """W + scale (B A)^T of an embedding: A (r x tokens), B (width x r), both float32."""

    a: torch.Tensor
    b: torch.Tensor
    scale: float

    def delta(self, start: int, stop: int) -> torch.Tensor:
        """Rows of what is added: (stop - start) x width, float32."""
        return (self.b @ self.a[:, start:stop]).T * self.scale

    def apply(self, rows: torch.Tensor, start: int) -> torch.Tensor:
        """See `Change`."""
        return rows + self.delta(start, start + len(rows)).to(rows.dtype)


@dataclass(frozen=True, slots=True)
class DoraLinearChange:
    """m (W + D) / ||W + D||, the norm that of each row (one output); m (out)."""

    low_rank: LinearChange
    magnitude: torch.Tensor

    def apply(self, rows: torch.Tensor, start: int) -> torch.Tensor:
        """See `Change`."""
        whole = rows + self.low_rank.delta(start, start + len(rows))
        factor: torch.Tensor = self.magnitude[start : start + len(rows)] / torch.linalg.norm(whole, dim=1)
        return (factor.view(-1, 1) * whole).to(rows.dtype)


@dataclass(frozen=True, slots=True)
class DoraEmbeddingChange:
    """m (W + D) / ||W + D||, the norm that of each column (one dimension of the embedding); m (width)."""

    low_rank: EmbeddingChange
    factor: torch.Tensor
    """m / ||W + D||, from `dora_embedding`."""

    def apply(self, rows: torch.Tensor, start: int) -> torch.Tensor:
        """See `Change`."""
        return (self.factor * (rows + self.low_rank.delta(start, start + len(rows)))).to(rows.dtype)


@dataclass(frozen=True, slots=True)
class BiasChange:
    """b + scale c, where lora_B has a bias c (out) of its own."""

    added: torch.Tensor
    scale: float

    def apply(self, rows: torch.Tensor, start: int) -> torch.Tensor:
        """See `Change`."""
        return (rows + self.added[start : start + len(rows)] * self.scale).to(rows.dtype)


def dora_embedding(
    low_rank: EmbeddingChange, magnitude: torch.Tensor, read: Rows, slices: Iterator[tuple[int, int]]
) -> DoraEmbeddingChange:
    """Reads an embedding once, for the norms of its columns."""
    squares = torch.zeros(len(magnitude), dtype=torch.float64)
    for start, stop in slices:
        squares += (read(start, stop) + low_rank.delta(start, stop)).double().square().sum(0)
    return DoraEmbeddingChange(low_rank, magnitude / squares.sqrt().float())
