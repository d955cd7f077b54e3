"""Ray itself holds GPUs and their shares. It counts those it is told of: no GPU is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

_SCRIPT = """
import asyncio, sys
from contextlib import AsyncExitStack
from pathlib import Path
from cutoff.coordinator import scheduler
from cutoff.v1 import trainer_pb2

def holding(gpus, patience):
    return scheduler.holding(scheduler.Call("trainer", "", trainer_pb2.TrainRequest(), None, gpus), patience)

async def main():
    count = scheduler.count_gpus
    async def until(free):
        while abs(count()[1] - free) > 1e-6:
            await asyncio.sleep(0.1)
    async with AsyncExitStack() as stack:
        for _ in range(2):
            held = await stack.enter_async_context(holding(0.5, 60))
            assert held.devices == ("cuda:0",), held
        await until(1)
        whole = await stack.enter_async_context(holding(1, 60))
        assert whole.devices == ("cuda:1",), whole
        await until(0)
        try:
            async with holding(0.5, 3):
                raise AssertionError("there was no GPU left")
        except scheduler.NotPlaced as error:
            assert error.retryable
        slots = [await stack.enter_async_context(holding(0, 60)) for _ in range(2)]
        assert [slot.devices for slot in slots] == [(), ()], "GPU stages hold no slot"
    await until(2)
    async with holding(2, 60) as both:
        assert sorted(both.devices) == ["cuda:0", "cuda:1"]

scheduler.start_ray(None, Path(sys.argv[1]), gpus="2")
try:
    asyncio.run(main())
finally:
    scheduler.stop_ray()
print("held and freed")
"""


def test_shares_and_whole_gpus_are_held_and_freed(tmp_path: Path) -> None:
    short = {**os.environ, "RAY_TMPDIR": f"/tmp/r{os.getpid()}"}  # a socket's path has few letters
    Path(short["RAY_TMPDIR"]).mkdir()
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(tmp_path)], capture_output=True, text=True, timeout=300, env=short
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "held and freed\n"
