"""Where a process kills itself, given in FAULTS_DEATH as "before:3" or "after:train/checkpoint/2"."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Death:
    """A moment in a process's life at which it is gone, as by kill -9."""

    when: str
    """before or after."""
    what: str

    def __str__(self) -> str:
        return f"{self.when}:{self.what}"

    @classmethod
    def of_environment(cls) -> Self | None:
        """The one this process is to die; most die none."""
        when, _, what = os.environ.get("FAULTS_DEATH", "").partition(":")
        return cls(when, what) if when else None

    def come(self, when: str, what: str) -> None:
        """Ends the process if this is its moment."""
        if (when, what) == (self.when, self.what):
            os.kill(os.getpid(), signal.SIGKILL)
