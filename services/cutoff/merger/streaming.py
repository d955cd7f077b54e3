"""The merge, tensor by tensor: from the base's files to the merged model's, never a whole model in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import torch

from cutoff.errors import CheckFailed
from cutoff.hub import TrainedOn
from cutoff.merger import architecture, changes
from cutoff.merger.adapter import Adapter, strange_to_streaming
from cutoff.merger.checkpoint import OpenFiles, Stored, Tensors
from cutoff.merger.round_trip import round_trip
from cutoff.merger.shards import AHEAD, SHARD_BYTES, TYPES, Written, write_model

_SLICE = 1 << 21
"""Numbers that are worked on at a time: 8 MiB in float32."""


class Source(NamedTuple):
    """Where a tensor of the merged model comes from, and what is done to it."""

    stored: Stored
    change: changes.Change | None = None
    unpacked: TrainedOn | None = None
    """Set for weights that are taken as training on packed weights saw them."""


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
    adapter: Adapter,
    config: Mapping[str, Any],
    tensors: Tensors,
    files: OpenFiles,
    unpacked: TrainedOn | None = None,
) -> StreamPlan:
    """Says for each tensor of the merged model what it is made of.

    Tied embeddings are untied where training separated them: where it changed one of them and did not keep the
    other the same (peft's ensure_weight_tying does).

    Args:
        adapter: Nothing speaks against it: `reasons_against`, `cutoff.merger.fit`.
        config: The base model's config.json.
        tensors: The base model's tensors.
        files: Reads what the adapter holds.
        unpacked: Given to merge into what training on packed weights saw of the base model.
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
    sources = {name: _source(name, stored, adapter, files) for name, stored in base.items()}
    if unpacked:
        # transformers packs every linear layer but the output embedding.
        packed = [name for name in sources if name.endswith("_proj.weight") and name not in adapter.replaced]
        sources |= {name: sources[name]._replace(unpacked=unpacked) for name in packed}
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
    finished = 0
    buffers = _Buffers(plan.sources.values(), TYPES[target])

    def chunks(name: str) -> Iterator[torch.Tensor]:
        nonlocal finished
        yield from _chunks(name, plan.sources[name], files, buffers)
        finished += 1
        done(finished)

    tensors = [Written(name, target, source.stored.shape) for name, source in plan.sources.items()]
    with torch.inference_mode(), _one_core_less():
        return write_model(folder, tensors, chunks, shard_bytes)


class _Buffers:
    """Memory for the rows that are worked on: one float32 slice, and the slices that wait to be written."""

    def __init__(self, sources: Iterable[Source], target: torch.dtype) -> None:
        numbers = max((_rows_at_once(source.stored) * _width(source.stored) for source in sources), default=0)
        self.target = target
        self._scratch = torch.empty(numbers)
        self._waiting = cycle([torch.empty(numbers, dtype=target) for _ in range(AHEAD + 1)])

    def scratch(self, shape: torch.Size) -> torch.Tensor:
        """A float32 slice of this shape."""
        return self._scratch[: shape.numel()].view(shape)

    def next(self, shape: torch.Size) -> torch.Tensor:
        """A slice of this shape in the merged model's type, whose last content is written."""
        return next(self._waiting)[: shape.numel()].view(shape)


@contextmanager
def _one_core_less() -> Iterator[None]:
    """Leaves a core to the thread that hashes and writes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads - 1))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _complete_tied(base: Tensors, adapter: Adapter) -> None:
    """Gives both of two tied embeddings a place to be read from; what is stored beside an adapter stands for both."""
    both = (architecture.EMBEDDING, architecture.OUTPUT)
    stored = next(base[name] for name in both if name in base)
    saved = adapter.replaced.get(architecture.EMBEDDING)
    beside_pair = saved if saved and architecture.EMBEDDING.removesuffix(".weight") in adapter.pairs else None
    for name in both:
        base[name] = beside_pair or stored


def _source(name: str, stored: Stored, adapter: Adapter, files: OpenFiles) -> Source:
    stored = adapter.replaced.get(name, stored)
    module, _, kind = name.rpartition(".")
    parts = adapter.pairs.get(module, {})
    if kind == "bias" and "lora_B.bias" in parts:
        return Source(stored, changes.BiasAdded(_float32(parts["lora_B.bias"], files), adapter.scale(module)))
    if kind != "weight" or not parts:
        return Source(stored)
    magnitude = parts.get("lora_magnitude_vector")
    if "lora_A" in parts:
        linear = changes.LinearProduct(
            _float32(parts["lora_A"], files), _float32(parts["lora_B"], files), adapter.scale(module)
        )
        dora = changes.DoraLinear(linear, _float32(magnitude, files)) if magnitude else None
        return Source(stored, dora or changes.Added(linear))
    embedding = changes.EmbeddingProduct(
        _float32(parts["lora_embedding_A"], files), _float32(parts["lora_embedding_B"], files), adapter.scale(module)
    )
    if not magnitude:
        return Source(stored, changes.Added(embedding))

    def read(start: int, stop: int) -> torch.Tensor:
        return files.rows(stored, start, stop)

    return Source(stored, changes.dora_embedding(embedding, _float32(magnitude, files), read, _slices(stored)))


def _float32(stored: Stored, files: OpenFiles) -> torch.Tensor:
    return files.whole(stored).float()


def _width(stored: Stored) -> int:
    """Numbers in a row."""
    return stored.parameters // max(1, stored.shape[0])


def _rows_at_once(stored: Stored) -> int:
    return min(stored.shape[0], max(1, _SLICE // max(1, _width(stored))))


def _slices(stored: Stored) -> Iterator[tuple[int, int]]:
    """Ranges of rows of at most _SLICE numbers."""
    rows, step = stored.shape[0], _rows_at_once(stored)
    yield from ((start, min(start + step, rows)) for start in range(0, rows, step))


def _chunks(name: str, source: Source, files: OpenFiles, buffers: _Buffers) -> Iterator[torch.Tensor]:
    whole = round_trip(files.whole(source.stored), source.unpacked) if source.unpacked else None
    for start, stop in _slices(source.stored):
        rows = files.rows(source.stored, start, stop) if whole is None else whole[start:stop]
        if source.change:
            out = buffers.next(rows.shape)
            source.change.apply(rows, start, out, buffers.scratch(rows.shape))
        elif rows.dtype == buffers.target:
            out = rows
        else:
            out = buffers.next(rows.shape).copy_(rows)
        _require_numbers(name, out)
        yield out


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
