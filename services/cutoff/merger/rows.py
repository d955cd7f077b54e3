"""Is each written tensor what base and adapter make of it? A few rows of each, read again and computed once more.

Logits of a 16-bit model do not show that one layer's change was lost: rounding all the others moves them as far.
Numbers do: each must be the exact one within the rounding of its type. What is looked for is the adapter's own list of
modules, not what the merge planned to write.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cutoff.errors import CheckFailed
from cutoff.hub import TrainedOn
from cutoff.merger import architecture, changes
from cutoff.merger.adapter import Adapter
from cutoff.merger.checkpoint import OpenFiles, Stored, Tensors, read_checkpoint
from cutoff.merger.round_trip import round_trip
from cutoff.merger.streaming import complete_tied, is_packed, slices

ROWS = 4
"""So many of each tensor are compared; which is told by its name."""

_SINGLE = 1e-5
"""What float32 may lose of a product, relative to its terms."""


def check_rows(
    merged: Path, adapter: Adapter, config: Mapping[str, Any], tensors: Tensors, unpacked: TrainedOn | None = None
) -> None:
    """Compares rows of every tensor of a merged model with what base and adapter make of them.

    Args:
        merged: Its folder, as `cutoff.merger.streaming` wrote it.
        adapter: What was merged.
        config: The base model's config.json.
        tensors: The base model's tensors.
        unpacked: Given where the adapter was merged into what training on packed weights saw.

    Raises:
        CheckFailed: A tensor is missing, or differs by more than rounding explains.
    """
    base, files, written = dict(tensors), OpenFiles(), read_checkpoint(merged)
    if architecture.is_tied(config):
        complete_tied(base, adapter)
    for name, stored in base.items():
        found = written.get(name) or (written.get(architecture.EMBEDDING) if name == architecture.OUTPUT else None)
        source = adapter.replaced.get(name, stored)
        if found is None or found.shape != source.shape:
            raise CheckFailed(f"the merged model has no {name} of the base's shape; nothing was published", _REMEDY)
        whole = None
        if unpacked and is_packed(name, adapter):
            if name.removesuffix(".weight") not in adapter.pairs:
                continue  # packing all of it again to look at a few rows would take as long as the merge
            whole = round_trip(files.whole(source), unpacked)
        expect = _Expected(name, source, adapter, files)
        for row in _rows(name, source.shape[0]):
            before = whole[row] if whole is not None else files.rows(source, row, row + 1)[0]
            _compare(name, row, files.rows(found, row, row + 1)[0], *expect(before.double(), row))


_REMEDY = "merge again; if it stays, tell the makers of cutoff, with the adapter's configuration"


def _rows(name: str, there: int) -> list[int]:
    """Some of so many rows: the same for each merge, others for each tensor."""
    return random.Random(name).sample(range(there), min(ROWS, there))  # noqa: S311


def _compare(name: str, row: int, found: torch.Tensor, wanted: torch.Tensor, terms: torch.Tensor) -> None:
    """Each number must be the wanted one, within the rounding of its terms."""
    kind = torch.finfo(found.dtype)
    off, allowed = (found.double() - wanted).abs(), kind.eps * (terms + kind.smallest_normal) + _SINGLE * terms
    if not bool((off <= allowed).all()):  # NaN is none of both
        at = int((off - allowed).nan_to_num(torch.inf).argmax())
        raise CheckFailed(
            f"{name} is not what base and adapter make of it: row {row} is off by {float(off.view(-1)[at]):.3g}, "
            f"where rounding explains {float(allowed.view(-1)[at]):.3g}; nothing was published",
            _REMEDY,
        )


class _Expected:
    """Computes rows of one tensor, in float64."""

    def __init__(self, name: str, source: Stored, adapter: Adapter, files: OpenFiles) -> None:
        module, _, kind = name.rpartition(".")
        self._parts = {part: files.whole(each) for part, each in adapter.pairs.get(module, {}).items()}
        self._kind, self._scale = kind, adapter.scale(module) if self._parts else 0.0
        self._magnitude = self._parts.get("lora_magnitude_vector") if kind == "weight" else None
        self._factor: torch.Tensor | None = None
        if self._magnitude is not None and "lora_embedding_A" in self._parts:
            a, b = (self._parts[f"lora_embedding_{half}"].float() for half in "AB")

            def read(start: int, stop: int) -> torch.Tensor:
                return files.rows(source, start, stop)

            product = changes.EmbeddingProduct(a, b, self._scale)
            self._factor = changes.dora_embedding(product, self._magnitude.float(), read, slices(source)).factor

    def __call__(self, before: torch.Tensor, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A row after the merge, and the size of the terms it is a sum of; `before` is the row of the base."""
        added, size = self._added(row)
        wanted, terms = before + added, (before + added).abs() + size
        if self._factor is not None:
            return wanted * self._factor.double(), terms * self._factor.double().abs()
        if self._magnitude is not None:
            factor = self._magnitude[row].double() / torch.linalg.norm(wanted)
            return wanted * factor, terms * factor.abs()
        return wanted, terms

    def _added(self, row: int) -> tuple[Any, Any]:
        """What the adapter adds to a row, and the same with all terms positive."""
        parts = self._parts
        if self._kind == "bias" and "lora_B.bias" in parts:
            one, other = parts["lora_B.bias"][row].double().view(1), torch.ones(1, 1, dtype=torch.float64)
        elif self._kind != "weight" or not parts:
            return 0.0, 0.0
        elif "lora_A" in parts:
            one, other = parts["lora_B"][row].double(), parts["lora_A"].double()
        else:
            one, other = parts["lora_embedding_A"][:, row].double(), parts["lora_embedding_B"].double().T
        added, size = self._scale * (one @ other), abs(self._scale) * (one.abs() @ other.abs())
        return (added[0], size[0]) if self._kind == "bias" else (added, size)
