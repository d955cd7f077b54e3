"""Ties a process to the life of the one that started it (Linux: PR_SET_PDEATHSIG, prctl(2)).

The kernel sends the signal when the *thread* that started the process ends, so start tethered processes
from a thread that lives as long as they should.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1
_BECOME = "from cutoff.process.tether import become; become()"


def die_with_parent(parent: int, death_signal: signal.Signals = signal.SIGKILL) -> None:
    """Asks the kernel to signal the calling process when its parent ends.

    Args:
        parent: The parent's process id; when it is gone already, the calling process ends at once.
        death_signal: What the kernel sends.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(death_signal))
    if os.getppid() != parent:
        sys.exit(f"the process that started this one ({parent}) is gone")


def tethered(command: Sequence[str], death_signal: signal.Signals = signal.SIGKILL) -> list[str]:
    """The command line that runs `command` tied to the calling process."""
    return [sys.executable, "-c", _BECOME, str(os.getpid()), death_signal.name, *command]


def become() -> None:
    """Ties this process to its parent, then becomes the command on its command line."""
    parent, name, *command = sys.argv[1:]
    die_with_parent(int(parent), signal.Signals[name])
    os.execvp(command[0], command)
