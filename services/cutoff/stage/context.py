"""What a work function is given besides its request."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cutoff.artifacts import Roots
from cutoff.stage.report import Reporter
from cutoff.v1 import types_pb2


@dataclass(frozen=True, slots=True)
class RunContext:
    """One run as the code inside its process sees it."""

    key: types_pb2.RunKey
    folder: Path
    """The attempt's own folder, below the artifacts root; the run writes nowhere else. It exists."""
    roots: Roots
    devices: tuple[str, ...]
    """As torch names them ("cuda:0"); empty means the CPU."""
    report: Reporter
