"""What a job writes to the disks, computed from its model's size before anything is fetched or made.

One function for `cutoff plan`, for prepare, and for what the converter is asked before training. Every figure is what
it may come to at the most; `artifacts.require_room` adds them up by file system, with a margin.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from cutoff.artifacts import DiskNeed, Roots, same_file_system
from cutoff.hub.remote_code import read_json
from cutoff.hub.shape import ELEMENT_BYTES, ModelShape, shape_of, stored_parameters
from cutoff.spec import DatasetSpec, JobSpec
from cutoff.spec.quant_types import GAINS_FROM_IMATRIX, QuantType
from cutoff.spec.quantizations import size_at_most

CHECKPOINT_BYTES = 4 + 8
"""Per adapter parameter on the disk: weight and AdamW's two moments, in float32."""

KEPT_CHECKPOINTS = 4
"""The newest three, and the best where it is none of them."""

IMATRIX_BYTES = 64 << 20
"""An importance matrix, at most: two floats for each input of each weight matrix."""

_IDS_PER_TEXT = 2
"""Tokenized data, as a multiple of its files: 4 bytes an id, and texts have at least two bytes a token."""


@dataclass(frozen=True, slots=True)
class ModelSize:
    """How large a model is, as far as its files' sizes depend on it."""

    parameters: int
    hidden: int
    """Width of its layers; 0 when that is not known."""
    shape: ModelShape | None = None
    """None where it is not built as those whose adapters can be counted."""

    @classmethod
    def of_shape(cls, shape: ModelShape) -> Self:
        """Of a model that is known by its numbers."""
        return cls(shape.parameters, shape.hidden, shape)

    @classmethod
    def of_folder(cls, folder: Path, parameters: int = 0) -> Self:
        """Of a model's folder; one without weights must be told how many it has.

        Raises:
            ValueError, OSError: A file is not whole.
        """
        config = read_json(folder / "config.json")
        hidden = config.get("hidden_size")
        return cls(parameters or stored_parameters(folder), hidden if isinstance(hidden, int) else 0, shape_of(config))

    def adapter_parameters(self, rank: int) -> int:
        """Of an adapter on every linear layer; of an unknown shape, as if all its weights were square layers."""
        if self.shape is not None:
            return self.shape.lora_parameters(rank)
        return 2 * rank * self.parameters // self.hidden if self.hidden else 0


def checkpoint_bytes(size: ModelSize, rank: int) -> int:
    """What a run's checkpoints and its final adapter take on the disk at the most."""
    return size.adapter_parameters(rank) * (CHECKPOINT_BYTES * KEPT_CHECKPOINTS + 4)


def tokens_need(dataset: DatasetSpec, datasets_root: Path | None, cache: Path) -> DiskNeed:
    """The tokenized data, in the cache. Files that are not there count nothing: they are named elsewhere."""
    paths = [(datasets_root or Path()) / name for name in dataset.files().values()]
    size = sum(path.stat().st_size for path in paths if path.is_file())
    return DiskNeed("tokenized data", cache, _IDS_PER_TEXT * size)


def made_needs(spec: JobSpec, size: ModelSize, artifacts: Path) -> list[DiskNeed]:
    """What stays with the job, and the 16-bit GGUF while the others are made of it."""
    return [
        DiskNeed("checkpoints and adapter", artifacts, checkpoint_bytes(size, spec.train.lora_r)),
        DiskNeed(f"merged model, {spec.merge.dtype}", artifacts, size.parameters * ELEMENT_BYTES[spec.merge.dtype]),
        *conversion_needs(
            size.parameters,
            spec.convert.quant_types,
            artifacts,
            stays=spec.convert.keep_f16,
            imatrix=spec.convert.imatrix == "always" or not {*GAINS_FROM_IMATRIX}.isdisjoint(spec.convert.quant_types),
        ),
    ]


def conversion_needs(
    parameters: int,
    types: Iterable[QuantType],
    folder: Path,
    *,
    sixteen_bit: Literal["f16", "bf16"] = "f16",
    stays: bool = False,
    imatrix: bool = False,
) -> list[DiskNeed]:
    """The GGUF files of a conversion, and what it needs on the way.

    Args:
        parameters: Of the model.
        types: What is asked for.
        folder: Where they are written.
        sixteen_bit: The type of the file that all quantized ones are made from.
        stays: Whether that is kept though it is none of `types`.
        imatrix: Whether an importance matrix is made.
    """
    asked = list(dict.fromkeys(types))
    between = "" if stays else ", while converting"
    needs = [DiskNeed(f"GGUF {each}", folder, size_at_most(parameters, each)) for each in asked]
    if sixteen_bit not in asked:
        needs.insert(0, DiskNeed(f"16-bit GGUF{between}", folder, size_at_most(parameters, sixteen_bit)))
    if imatrix:
        needs.append(DiskNeed("importance matrix", folder, IMATRIX_BYTES))
    return needs


def install_needs(
    parameters: int, types: Iterable[QuantType], artifacts: Path, models: Path, stays: bool = False
) -> list[DiskNeed]:
    """The installed copy of the first type.

    On one file system it takes nothing more where a 16-bit file was there before: that is larger, and gone by then
    (mostly the file is not even copied: it shares its blocks, or is the same file).

    Args:
        parameters: Of the model.
        types: What is converted to; the first is installed.
        artifacts: Where the files are.
        models: Where one is copied.
        stays: Whether the 16-bit file is kept.
    """
    asked = list(types)
    size = size_at_most(parameters, asked[0])
    freed = 0 if stays or "f16" in asked or "bf16" in asked else size_at_most(parameters, "f16")
    covered = freed >= size and same_file_system(artifacts, models)
    return [] if covered else [DiskNeed(f"installed {asked[0]}", models, size)]


def job_needs(spec: JobSpec, size: ModelSize, roots: Roots, fetched: DiskNeed | None = None) -> list[DiskNeed]:
    """Everything a job writes.

    Args:
        spec: The job.
        size: Its base model's.
        roots: Where things go.
        fetched: What is still to be fetched of the base model.
    """
    needs = [fetched] if fetched else []
    needs += [tokens_need(spec.dataset, roots.datasets, roots.cache), *made_needs(spec, size, roots.artifacts)]
    if spec.install.enabled:
        stays, types = spec.convert.keep_f16, spec.convert.quant_types
        needs += install_needs(size.parameters, types, roots.artifacts, roots.models, stays)
    return needs
