"""Writes safetensors files as a stream: header first, then the tensors' bytes as they come.

The files are those of `save_pretrained`: the same shards, names, order and index. Format: an 8-byte little-endian
header length, the JSON header padded with spaces to a multiple of 8, then the tensors (safetensors' README).
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_state_dict_into_shards_factory

from cutoff.hub.model_folder import INDEX

SHARD_BYTES = 5_000_000_000
"""A larger model is written as several files."""

TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""The floating-point types a model is stored in."""

AHEAD = 2
"""At most so many pieces wait to be written."""


@dataclass(frozen=True, slots=True)
class Written:
    """One tensor of a file that is to be written."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def parameters(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """What it takes in the file."""
        return self.parameters * TYPES[self.dtype].itemsize


Chunks = Callable[[str], Iterable[torch.Tensor]]
"""A tensor's rows by its name, from the first to the last, in the type they are written in.

What was given may be overwritten when AHEAD more were given.
"""


def write_model(
    folder: Path, tensors: Sequence[Written], chunks: Chunks, shard_bytes: int = SHARD_BYTES
) -> dict[str, str]:
    """Writes a model's weights, with an index when there are several files.

    Args:
        folder: Where to; it exists.
        tensors: What is written.
        chunks: Gives each tensor's content when its turn comes.
        shard_bytes: The largest file; a single larger tensor gets a file of its own.

    Returns:
        The SHA-256 of each file that was written, by its name.
    """
    sizes = {tensor.name: tensor.size_bytes for tensor in sorted(tensors, key=_place)}
    split = split_state_dict_into_shards_factory(
        sizes,
        get_storage_size=lambda size: size,
        get_storage_id=lambda _: None,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=shard_bytes,
    )
    by_name = {tensor.name: tensor for tensor in tensors}
    digests = {}
    for file, names in split.filename_to_tensors.items():
        digests[file] = _write_file(folder / file, [by_name[name] for name in sorted(names)], chunks)
    if split.is_sharded:
        total = {"total_parameters": sum(tensor.parameters for tensor in tensors), **split.metadata}
        content = {"metadata": total, "weight_map": split.tensor_to_filename}
        (folder / INDEX).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return digests


def _place(tensor: Written) -> list[tuple[int, int, str]]:
    """The order in which transformers fills files: by name, numbers as numbers."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in tensor.name.split(".")]


def _write_file(path: Path, tensors: Sequence[Written], chunks: Chunks) -> str:
    """Writes one file; returns its SHA-256. While one piece is hashed and written, the next is computed."""
    digest = hashlib.sha256()
    with path.open("wb") as file, ThreadPoolExecutor(1) as writer:

        def put(piece: bytes | memoryview) -> None:
            digest.update(piece)
            file.write(piece)

        under_way: deque[Future[None]] = deque()
        pieces: Iterator[bytes | memoryview] = chain([_header(tensors)], _contents(tensors, chunks))
        for piece in pieces:
            under_way.append(writer.submit(put, piece))
            if len(under_way) > AHEAD:
                under_way.popleft().result()
        for future in under_way:
            future.result()
    return digest.hexdigest()


def _header(tensors: Sequence[Written]) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for tensor in tensors:
        end = at + tensor.size_bytes
        entries[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _contents(tensors: Sequence[Written], chunks: Chunks) -> Iterator[memoryview]:
    """The tensors' bytes.

    Raises:
        ValueError: A tensor came with another type or size than its header says.
    """
    for tensor in tensors:
        left = tensor.size_bytes
        for chunk in chunks(tensor.name):
            if chunk.dtype != TYPES[tensor.dtype]:
                raise ValueError(f"{tensor.name} comes as {chunk.dtype}, not as {tensor.dtype}")
            numbers: Any = chunk.contiguous().view(-1).view(torch.uint8).numpy()
            piece = memoryview(numbers)
            left -= len(piece)
            yield piece
        if left:
            raise ValueError(f"{tensor.name} comes with {left} bytes too few")
