"""Greedy decoding of a batch of prompts whose finished rows leave the batch.

Sums over a padded batch are added up in another order than those of one prompt alone, so that logits differ in their
last bits, and where the two likeliest tokens are nearly tied the batch may choose the other one. In float32 such rows
are told apart (`Decoded.doubtful`), so that whoever calls can ask them again alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

_NEAR = 1e-3
"""Logits closer than this count as nearly tied. In float32, batching moved them by at most 2.4e-5 (docs/log.md)."""

_LEAVE = 0.25
"""Finished rows leave when they are so large a share of the batch: leaving copies the cache of those that stay."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """One finished row."""

    row: int
    """Its place among the prompts."""
    ids: list[int]
    """Token ids of the answer, without the end token."""
    cut: bool
    """Whether max_tokens ended it."""
    doubtful: bool
    """Whether a choice was nearly a tie; always False where the model does not compute in float32."""


def can_decode(model: PreTrainedModel) -> bool:
    """Whether the model takes what is given to it here, and its cache holds nothing but keys and values.

    Of such a cache rows can be taken out; the state of a Mamba, say, is kept elsewhere.
    """
    given: Any = model
    inner = given.get_base_model() if hasattr(given, "get_base_model") else given
    takes = inspect.signature(inner.forward).parameters
    supports: Any = getattr(inner, "_supports_default_dynamic_cache", None)
    layers = DynamicCache(config=inner.config).layers
    known = (DynamicLayer, DynamicSlidingWindowLayer)
    return (
        {"position_ids", "logits_to_keep"} <= takes.keys()
        and bool(supports and supports())
        and all(type(layer) in known for layer in layers)
    )


@torch.inference_mode()
def decode(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], max_tokens: int, stops: Collection[int], pad: int
) -> Iterator[Decoded]:
    """Yields the most likely continuation of each prompt, those that end first first.

    Args:
        model: In evaluation mode; `can_decode` says whether it can be decoded here.
        prompts: Token ids; best of similar length, because the shorter ones are padded on the left.
        max_tokens: The longest continuation.
        stops: Tokens that end it.
        pad: Any token id: padding is masked.
    """
    batch = _Batch(model, prompts, pad)
    written: list[list[int]] = [[] for _ in prompts]
    doubtful = [False] * len(prompts)
    for length in range(1, max_tokens + 1):
        chosen, near = batch.step()
        ended = []
        for at, (row, token, close) in enumerate(zip(batch.rows, chosen, near, strict=True)):
            if row is None:
                continue
            doubtful[row] |= close
            if token not in stops:
                written[row].append(token)
            if token in stops or length == max_tokens:
                yield Decoded(row, written[row], token not in stops, doubtful[row])
                ended.append(at)
        if not batch.release(ended):
            return


class _Batch:
    """Rows under way, with their cache. Tensors have shape (rows, tokens)."""

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], pad: int) -> None:
        width = max(map(len, prompts))
        device = model.device
        self.rows: list[int | None] = list(range(len(prompts)))
        """The prompt each row of the batch belongs to; None once it has ended."""
        self._model = model
        self._cache = DynamicCache(config=model.config)
        self._next = torch.tensor([[pad] * (width - len(row)) + list(row) for row in prompts], device=device)
        self._mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts], device=device)
        self._positions = (self._mask.cumsum(1) - 1).clamp(min=0)

    def step(self) -> tuple[list[int], list[bool]]:
        """Chooses each row's next token; says for each whether another one was nearly as likely."""
        output: Any = self._model(
            input_ids=self._next,
            attention_mask=self._mask,
            position_ids=self._positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits = output.logits[:, -1]
        if logits.dtype == torch.float32:
            best = logits.topk(2).values
            near = (best[:, 0] - best[:, 1] < _NEAR).tolist()
        else:
            near = [False] * len(logits)
        chosen = logits.argmax(-1, keepdim=True)  # topk is free to order ties as it likes; this takes the first
        self._next = chosen
        self._positions = self._positions[:, -1:] + 1
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(logits), 1)], dim=1)
        return chosen[:, 0].tolist(), near

    def release(self, ended: Sequence[int]) -> bool:
        """Takes note of rows that have ended; False when none is left."""
        for at in ended:
            self.rows[at] = None
        staying = [at for at, row in enumerate(self.rows) if row is not None]
        if staying and len(self.rows) - len(staying) >= _LEAVE * len(self.rows):
            self._keep(staying)
        return bool(staying)

    def _keep(self, staying: list[int]) -> None:
        kept = torch.tensor(staying, device=self._next.device)
        self._cache.batch_select_indices(kept)
        self._next, self._positions, self._mask = self._next[kept], self._positions[kept], self._mask[kept]
        self.rows = [self.rows[at] for at in staying]
