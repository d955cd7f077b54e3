"""Which quantization type a job installs. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """A GGUF of the job, evaluated."""

    quant_type: str
    size_bytes: int
    missed: tuple[str, ...]
    """What keeps it from reaching install.require, in sentences; empty when it passes."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What is to be installed."""

    quant_type: str | None
    """None when nothing passes."""
    missed: tuple[str, ...]
    """Why nothing does, in sentences."""


def choose_quant(candidates: Sequence[Candidate], quant: str) -> Choice:
    """Chooses the GGUF to install.

    Args:
        candidates: In the order of convert.quant_types, at least one.
        quant: install.quant. "first" takes the first or nothing; "smallest_passing" the smallest file that passes, and
            of equally small ones the first.
    """
    considered = candidates[:1] if quant == "first" else candidates
    passing = [one for one in considered if not one.missed]
    if passing:
        return Choice(min(passing, key=lambda one: one.size_bytes).quant_type, ())
    if len(considered) == 1:
        return Choice(None, considered[0].missed)
    return Choice(None, tuple(f"{one.quant_type}: {sentence}" for one in considered for sentence in one.missed))
