"""What a folder of safetensors files holds, told from headers; and its tensors' rows, read without copying them.

Nothing here imports torch before a tensor is read.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from cutoff.errors import Fault, InvalidInput
from cutoff.hub.base_model import weight_files
from cutoff.hub.model_folder import INDEX

if TYPE_CHECKING:
    import torch

_FETCH = "fetch the file again"


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor in a file."""

    path: Path
    name: str
    dtype: str
    """As safetensors names it: BF16, F16, F32."""
    shape: tuple[int, ...]

    @property
    def parameters(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


Tensors = dict[str, Stored]


def read_checkpoint(folder: Path) -> Tensors:
    """The tensors of a model folder whose files are whole (`cutoff.hub.check_model_folder`).

    Raises:
        InvalidInput: With every tensor that the index and the shards do not agree about.
    """
    found: dict[str, list[Stored]] = defaultdict(list)
    for path in weight_files(folder):
        for stored in read_file(path).values():
            found[stored.name].append(stored)
    faults = list(_index_faults(folder, found))
    if faults:
        raise InvalidInput(faults)
    return {name: places[0] for name, places in found.items()}


def read_file(path: Path) -> Tensors:
    """The tensors of one file.

    Raises:
        InvalidInput: It is no whole safetensors file.
    """
    try:
        with safe_open(path, "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {
                name: Stored(path, name, each.get_dtype(), tuple(each.get_shape())) for name, each in slices.items()
            }
    except SafetensorError as error:
        raise InvalidInput([Fault(str(path), f"is damaged: {error}", "make or fetch it again")]) from error


def _index_faults(folder: Path, found: Mapping[str, list[Stored]]) -> Iterator[Fault]:
    """Index and shards must name the same tensors in the same places."""
    index = folder / INDEX
    if not index.is_file():
        return
    named: dict[str, str] = json.loads(index.read_text("utf-8"))["weight_map"]
    for name, file in named.items():
        if file not in {stored.path.name for stored in found.get(name, [])}:
            yield Fault(str(index), f"says that {name} is in {file}, which does not hold it", _FETCH)
    for name, places in found.items():
        if name not in named:
            yield Fault(str(index), f"does not name {name}, which is in {places[0].path.name}", _FETCH)
        elif len(places) > 1:
            files = " and ".join(stored.path.name for stored in places)
            yield Fault(str(folder), f"holds {name} twice, in {files}", _FETCH)


class OpenFiles:
    """Reads rows of stored tensors. Files stay mapped into memory: their pages are the kernel's, not the process's."""

    def __init__(self) -> None:
        self._files: dict[Path, Any] = {}

    def rows(self, stored: Stored, start: int, stop: int) -> torch.Tensor:
        """Rows of a tensor, as they are stored: a view of the file, not to be written to."""
        return self._slice(stored)[start:stop]  # type: ignore[no-any-return]

    def whole(self, stored: Stored) -> torch.Tensor:
        """A whole tensor, as it is stored: a view of the file, not to be written to."""
        return self._file(stored.path).get_tensor(stored.name)  # type: ignore[no-any-return]

    def _slice(self, stored: Stored) -> Any:
        return self._file(stored.path).get_slice(stored.name)

    def _file(self, path: Path) -> Any:
        if path not in self._files:
            self._files[path] = safe_open(path, "pt")
        return self._files[path]
