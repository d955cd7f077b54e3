"""Memory of a process and all it started."""

import os
import subprocess
import sys

from cutoff.process import resident_bytes

HOLD = "x = bytearray(60_000_000); print('ready', flush=True); input()"


def test_memory_of_children_counts():
    before = resident_bytes(os.getpid())
    with subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        held = resident_bytes(child.pid)
        assert 60e6 < held < 160e6
        assert resident_bytes(os.getpid()) >= before + 50e6
        child.communicate(b"\n")
    assert resident_bytes(child.pid) == 0
