"""What a driver says of one GPU."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds memory of a device."""

    pid: int
    memory_bytes: int
    """0 where the driver does not say."""


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """One GPU's memory."""

    model: str
    total_bytes: int
    free_bytes: int
    holders: tuple[Holder, ...]
