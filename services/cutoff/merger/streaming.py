"""The merge, tensor by tensor: from the base's files to the merged model's, never a whole model in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from cutoff.errors import CheckFailed
from cutoff.merger import architecture, changes
from cutoff.merger.adapter import Adapter, strange_to_streaming
from cutoff.merger.checkpoint import OpenFiles, Stored, Tensors
from cutoff.merger.shards import SHARD_BYTES, TYPES, Written, write_model

_SLICE = 1 << 21
"""Numbers that are worked on at a time: 32 MiB in float32."""


class Source(NamedTuple):
    """Where a tensor of the merged model comes from, and what is done to it."""

    stored: Stored
    change: changes.Change | None = None


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """Every tensor of a merged model."""

    sources: Mapping[str, Source]
    tied: bool
    """Whether the output embedding is the input embedding in the merged model."""


def reasons_against(adapter: Adapter, config: Mapping[str, Any], tensors: Tensors) -> list[str]:
    """Why an adapter and a base model cannot be merged tensor by tensor; empty where they can."""
    if not architecture.is_known(config):
        return [f"model_type {config.get('model_type')} is not one it knows"]
    strange = architecture.unknown(config, tensors.keys())
    both = architecture.is_tied(config) and {architecture.EMBEDDING, architecture.OUTPUT} <= tensors.keys()
    types = sorted({stored.dtype for stored in tensors.values()} - TYPES.keys())
    return [
        *strange_to_streaming(adapter),
        *([f"the base model holds {strange[0]}, which it has no place for"] if strange else []),
        *(["the base model stores both embeddings, and its configuration says they are one"] if both else []),
        *([f"the base model has weights of type {types[0]}"] if types else []),
    ]


def plan_stream(
    adapter: Adapter, config: Mapping[str, Any], tensors: Tensors, target: str, files: OpenFiles
) -> StreamPlan:
    """Says for each tensor of the merged model what it is made of.

    Tied embeddings are untied where training separated them: where it changed one of them and did not keep the
    other the same (peft's ensure_weight_tying does).

    Args:
        adapter: Nothing speaks against it: `reasons_against`, `cutoff.merger.fit`.
        config: The base model's config.json.
        tensors: The base model's tensors.
        target: The merged model's type, as safetensors names it.
        files: Reads what the adapter holds.
    """
    base = dict(tensors)
    tied = architecture.is_tied(config)
    if tied:
        _complete_tied(base, adapter)
    touched = {f"{module}.weight" for module in adapter.pairs} | set(adapter.replaced)
    embeddings = {architecture.EMBEDDING, architecture.OUTPUT}
    separated = tied and bool(touched & embeddings) and not adapter.config.get("ensure_weight_tying")
    if tied and not separated:
        del base[architecture.OUTPUT]
    reader = _Reader(files, target)
    sources = {name: _source(name, stored, adapter, reader) for name, stored in base.items()}
    return StreamPlan(sources, tied and not separated)


def stream(
    plan: StreamPlan,
    folder: Path,
    target: str,
    files: OpenFiles,
    done: Callable[[int], None],
    shard_bytes: int = SHARD_BYTES,
) -> dict[str, str]:
    """Writes the merged model's weights.

    Args:
        plan: What they are made of.
        folder: Where to; it exists.
        target: Their type, as safetensors names it.
        files: Reads the sources.
        done: Hears how many tensors are written.
        shard_bytes: The largest file.

    Returns:
        The SHA-256 of each file, by its name.

    Raises:
        CheckFailed: A tensor holds numbers that are none, or too large for the type.
    """
    reader = _Reader(files, target)
    finished = 0

    def chunks(name: str) -> Iterator[torch.Tensor]:
        nonlocal finished
        yield from _chunks(name, plan.sources[name], reader)
        finished += 1
        done(finished)

    tensors = [Written(name, target, source.stored.shape) for name, source in plan.sources.items()]
    with torch.inference_mode():
        return write_model(folder, tensors, chunks, shard_bytes)


class _Reader:
    """Reads tensors in the type they are merged in."""

    def __init__(self, files: OpenFiles, target: str) -> None:
        self._files = files
        self.target = TYPES[target]

    def working(self, stored: Stored) -> torch.dtype:
        """The type a tensor is merged in: its own where it keeps it; else float32, to round only once."""
        own = TYPES[stored.dtype]
        return own if own == self.target else torch.float32

    def rows(self, stored: Stored, start: int, stop: int) -> torch.Tensor:
        return self._files.rows(stored, start, stop).to(self.working(stored))

    def float32(self, stored: Stored) -> torch.Tensor:
        return self._files.whole(stored).float()


def _complete_tied(base: Tensors, adapter: Adapter) -> None:
    """Gives both of two tied embeddings a place to be read from; what is stored beside an adapter stands for both."""
    both = (architecture.EMBEDDING, architecture.OUTPUT)
    stored = next(base[name] for name in both if name in base)
    saved = adapter.replaced.get(architecture.EMBEDDING)
    beside_pair = saved if saved and architecture.EMBEDDING.removesuffix(".weight") in adapter.pairs else None
    for name in both:
        base[name] = beside_pair or stored


def _source(name: str, stored: Stored, adapter: Adapter, reader: _Reader) -> Source:
    stored = adapter.replaced.get(name, stored)
    module, _, kind = name.rpartition(".")
    parts = adapter.pairs.get(module, {})
    change: changes.Change | None = None
    if kind == "weight" and "lora_A" in parts:
        change = _linear(parts, adapter.scale(module), reader)
    elif kind == "weight" and "lora_embedding_A" in parts:
        change = _embedding(parts, adapter.scale(module), stored, reader)
    elif kind == "bias" and "lora_B.bias" in parts:
        change = changes.BiasChange(reader.float32(parts["lora_B.bias"]), adapter.scale(module))
    return Source(stored, change)


def _linear(parts: Mapping[str, Stored], scale: float, reader: _Reader) -> changes.Change:
    plain = changes.LinearChange(reader.float32(parts["lora_A"]), reader.float32(parts["lora_B"]), scale)
    magnitude = parts.get("lora_magnitude_vector")
    return changes.DoraLinearChange(plain, reader.float32(magnitude)) if magnitude else plain


def _embedding(parts: Mapping[str, Stored], scale: float, stored: Stored, reader: _Reader) -> changes.Change:
    first, second = parts["lora_embedding_A"], parts["lora_embedding_B"]
    plain = changes.EmbeddingChange(reader.float32(first), reader.float32(second), scale)
    magnitude = parts.get("lora_magnitude_vector")
    if not magnitude:
        return plain
    return changes.dora_embedding(
        plain, reader.float32(magnitude), lambda start, stop: reader.rows(stored, start, stop), _slices(stored)
    )


def _slices(stored: Stored) -> Iterator[tuple[int, int]]:
    """Ranges of rows of at most _SLICE numbers."""
    rows = stored.shape[0]
    step = max(1, _SLICE * rows // max(1, stored.parameters))
    yield from ((start, min(start + step, rows)) for start in range(0, rows, step))


def _chunks(name: str, source: Source, reader: _Reader) -> Iterator[torch.Tensor]:
    for start, stop in _slices(source.stored):
        rows = reader.rows(source.stored, start, stop)
        if source.change:
            rows = source.change.apply(rows, start)
        rows = rows.to(reader.target)
        _require_numbers(name, rows)
        yield rows


def _require_numbers(name: str, rows: torch.Tensor) -> None:
    """One pass over the numbers: NaN and infinity show in the smallest or the largest."""
    smallest, largest = torch.aminmax(rows)
    if not (torch.isfinite(smallest) and torch.isfinite(largest)):
        raise CheckFailed(
            f"{name} holds numbers that {str(rows.dtype).removeprefix('torch.')} cannot hold; nothing was published",
            "merge with --dtype bfloat16 (merge.dtype: bfloat16), which holds larger numbers"
            if rows.dtype == torch.float16
            else "train the adapter again with a lower learning rate",
        )
