"""The wall clock jumps by an hour, ahead and back: nothing expires, for every lease runs on a monotonic clock."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from tests.faults.quick.audit import Audit
from tests.faults.quick.clock import WallClock
from tests.faults.quick.system import System

pytestmark = pytest.mark.fault

HOUR = 3600
LEASE = 60.0


def test_the_jump_is_seen_by_programs(tmp_path):
    clock = WallClock(tmp_path)
    clock.jump_to(HOUR)
    ask = "import time, datetime; print(time.time(), datetime.datetime.now().timestamp(), time.monotonic())"
    said = subprocess.run(
        [sys.executable, "-c", ask], env=dict(clock.environment), capture_output=True, text=True, check=True
    )
    wall, date, monotonic = map(float, said.stdout.split())
    assert abs(wall - time.time() - HOUR) < 10
    assert abs(date - wall) < 1
    assert abs(monotonic - time.monotonic()) < 10


def test_no_jump_of_the_wall_clock_expires_anything(tmp_path, figures):
    clock = WallClock(tmp_path)
    jumps = 0

    def jump(seconds: int) -> None:
        nonlocal jumps
        clock.jump_to(seconds)
        jumps += 1
        time.sleep(1.5)

    with System(lease=LEASE, environment=clock.environment) as system:
        system.start()
        for stage in ("train", "install"):
            system.ledger.hold(stage)
        name = system.submit(system.spec())
        for stage in ("train", "install"):
            system.wait_for("held", stage=stage)
            for seconds in (HOUR, 0, -HOUR, 0):  # while the run is watched
                jump(seconds)
            system.coordinator.kill()
            for seconds in (HOUR, -HOUR):  # while only its lease keeps it
                jump(seconds)
            system.coordinator.start()
            system.coordinator.wait_healthy()
            jump(0)
            system.ledger.release(stage)
        system.wait_terminal(name)
        audit = Audit.of(system, name)
        figures.hold(
            "the wall clock jumps by an hour", jumps,
            false_expiries=audit.attempts + audit.lost + audit.stuck,
        )  # fmt: skip
