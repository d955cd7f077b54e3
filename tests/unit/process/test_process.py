"""Processes that die with their parent, and groups that stop."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from cutoff.process import group_alive, stop_group, tethered

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
DEAF = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)",
]
PARENT = """
import subprocess, sys
from cutoff.process import tethered
child = subprocess.Popen(tethered([sys.executable, "-c", "import time; time.sleep(600)"]))
print(child.pid, flush=True)
child.wait()
"""


def start(command):
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout.readline().strip() == "up"
    return process


def wait_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, f"{pid} is still there"
        time.sleep(0.02)


def test_a_tethered_process_dies_with_a_killed_parent():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    assert psutil.pid_exists(child)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    wait_gone(child)


def test_a_tethered_command_is_the_command():
    ran = subprocess.run(tethered(["sh", "-c", "echo $1; exit 3", "sh", "a b"]), capture_output=True, text=True)
    assert (ran.stdout, ran.returncode) == ("a b\n", 3)


@pytest.mark.parametrize(("command", "gently"), [(SLEEP, True), (DEAF, False)])
def test_stopping_a_group(command, gently):
    process = start(command)
    assert group_alive(process.pid)
    assert stop_group(process.pid, grace=1.0) is gently
    assert not group_alive(process.pid)
    process.wait()


def test_stopping_a_group_that_is_gone_is_fine():
    process = start(SLEEP)
    process.kill()
    process.wait()
    assert stop_group(process.pid, grace=1.0)
