"""In which order a run sees its examples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler


class StepOrder(Sampler[int]):
    """Shuffles each epoch; within an optimizer step, examples of like length share a micro-batch.

    Which examples make up a step depends on seed and epoch only, and the loss is a mean over the step's answer
    tokens: the sorting saves padding and changes no gradient, and a smaller micro-batch sees the same steps.

    Args:
        lengths: Tokens of each example.
        per_step: Examples in an optimizer step.
        seed: Of the shuffling.
    """

    def __init__(self, lengths: Sequence[int], per_step: int, seed: int) -> None:
        self._lengths = lengths
        self._per_step = per_step
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Says which epoch comes next; transformers calls it, also when it resumes."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        order = torch.randperm(len(self._lengths), generator=generator).tolist()
        for start in range(0, len(order), self._per_step):
            yield from sorted(order[start : start + self._per_step], key=self._lengths.__getitem__)
