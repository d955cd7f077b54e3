"""Makes the wall clock of a quick system jump, for all its processes at once; see clock.c."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path


class WallClock:
    """A clock that starts right.

    Args:
        folder: Where the library and its file are made; `cc` is needed, which `make setup` needs too.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self._library = folder / "clock.so"
        source = Path(__file__).with_suffix(".c")
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", self._library, source, "-ldl"], check=True)
        self.jump_to(0)

    @property
    def environment(self) -> Mapping[str, str]:
        """What processes are started with that go by this clock."""
        return {"LD_PRELOAD": str(self._library), "FAULTS_CLOCK": str(self._file)}

    def jump_to(self, seconds: int) -> None:
        """From now on it is so many seconds ahead of the true time, or behind it."""
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("l", seconds))
