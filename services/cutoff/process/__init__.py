"""Processes that never outlive the one that started them, and stop when they are told to."""

from cutoff.process.memory import available_bytes, resident_bytes
from cutoff.process.stop import group_alive, stop_group
from cutoff.process.tether import die_with_parent, tethered

__all__ = ["available_bytes", "die_with_parent", "group_alive", "resident_bytes", "stop_group", "tethered"]
