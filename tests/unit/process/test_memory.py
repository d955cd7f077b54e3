"""Memory of a process and all it started."""

import os
import subprocess
import sys

from cutoff.process import available_bytes, resident_bytes
from cutoff.process.memory import _left_in_group

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


def test_memory_that_is_left_is_some_of_the_machines():
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < available_bytes() < total


def test_a_control_groups_limit_counts(tmp_path):
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("700000\n")
    (tmp_path / "memory.stat").write_text("anon 400000\ninactive_file 250000\n")
    assert _left_in_group(tmp_path) == [550000]
    (tmp_path / "memory.max").write_text("max\n")
    assert _left_in_group(tmp_path) == []
    assert _left_in_group(tmp_path / "version-1") == []
