"""The processes that share an optimizer step's examples, one per GPU: data parallelism by adding up gradients.

Only the adapter has gradients, a few MB, so that one sum per step is all there is to exchange. Each rank holds
the whole model and takes every n-th example; loss and gradients are shares of the step's means already, and their
sum is what one process alone would have computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed

from cutoff.trainer.batches import Example, tokens_in

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process's place among them. One alone exchanges nothing."""

    rank: int = 0
    count: int = 1
    device: str = "cpu"
    """Where tensors must be for the processes to exchange them."""

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    def own(self, examples: Sequence[Example]) -> list[Example]:
        """This rank's share of a step's examples; by length, so that ranks have about the same to do."""
        return sorted(examples, key=tokens_in)[self.rank :: self.count]

    def any(self, flag: bool) -> bool:
        """Whether a flag is up anywhere."""
        return self.sums([float(flag)])[0] > 0

    def sums(self, values: Sequence[float]) -> list[float]:
        """Adds up numbers over all ranks."""
        if self.count == 1:
            return list(values)
        told = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(told)
        return told.tolist()

    def add(self, gradients: Sequence[torch.Tensor | None], like: Sequence[torch.nn.Parameter]) -> None:
        """Adds up gradients over all ranks, in place; a rank without examples has none and gets the others' sum."""
        if self.count == 1:
            return
        for gradient, parameter in zip(gradients, like, strict=True):
            if gradient is None:
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat([parameter.grad.flatten() for parameter in like])  # type: ignore[union-attr]
        torch.distributed.all_reduce(flat)
        for parameter, summed in zip(like, flat.split([parameter.numel() for parameter in like]), strict=True):
            parameter.grad = summed.view_as(parameter)
