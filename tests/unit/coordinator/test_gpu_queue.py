"""The queue at work, on a scripted Ray and scripted readings of memory."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress

import pytest

from cutoff.coordinator.gpu_memory import Reading
from cutoff.coordinator.gpu_queue import GpuQueue, Times
from cutoff.coordinator.hosts import Addresses
from cutoff.coordinator.scheduler import Call, Held, NotPlaced
from cutoff.errors import DeviceMemoryHeld, Unavailable
from cutoff.v1 import job_pb2, run_pb2, trainer_pb2, types_pb2

GIB = 1 << 30
HOST = Addresses("trainer:1", "merger:1", "gguf-converter:1", "evaluator:1")
QUICK = Times(look=0.01, place=0.05, memory=0.01)


class Ray:
    """One host with some GPUs, which gives out the lowest free one, as Ray does; and slots for the rest."""

    def __init__(self, gpus: int = 1) -> None:
        self.left = {f"cuda:{number}": 1.0 for number in range(gpus)}
        self.driven: list[tuple[str, tuple[str, ...]]] = []
        self.go_on = asyncio.Event()
        """Runs end when it is set."""

    def count_gpus(self):
        return len(self.left), sum(self.left.values())

    @asynccontextmanager
    async def holding(self, call, patience=None):
        gpus = call.gpus
        share = min(gpus, 1)
        fitting = [name for name, left in self.left.items() if left >= share - 1e-9][: max(1, int(gpus))]
        if gpus and len(fitting) < gpus:
            await asyncio.sleep(patience)
            raise NotPlaced("none free")
        devices = tuple(fitting) if gpus else ()
        for name in devices:
            self.left[name] -= share
        try:
            yield Held("node", HOST, devices, lambda: self._drive(call, devices))
        finally:
            for name in devices:
                self.left[name] += share

    async def _drive(self, call, devices):
        self.driven.append((call.request.run.key.job, devices))
        yield types_pb2.Event(sequence=1, started=types_pb2.Started(pid=1, devices=devices))
        await self.go_on.wait()
        yield types_pb2.Event(sequence=2, finished=types_pb2.Finished())


def device(name: str, free: int) -> run_pb2.Device:
    """One of which LM Studio holds what is not free."""
    holder = types_pb2.DeviceProcess(pid=4242, name="lm-studio", memory_bytes=24 * GIB - free, group=4242)
    return run_pb2.Device(name=name, total_bytes=24 * GIB, free_bytes=free, processes=[holder])


class House:
    """A queue, what was told to jobs, and the memory of each GPU."""

    def __init__(self, gpus: int = 1) -> None:
        self.ray = Ray(gpus)
        self.free = {f"cuda:{number}": 24.0 for number in range(gpus)}
        self.told: dict[str, job_pb2.Waiting | None] = {}
        self.queue = GpuQueue(self.ray, self.read, self.told.__setitem__, QUICK)
        self.tasks: list[asyncio.Task[None]] = []

    async def read(self, services, service):
        return Reading([device(name, int(free * GIB)) for name, free in self.free.items()], ())

    def submit(self, job, gpus=1.0, need=0, priority=0, since=0.0, after=0, wait_minutes=1.0):
        header = types_pb2.RunHeader(key={"job": job, "stage": "train", "attempt": 1}, after_sequence=after)
        request = trainer_pb2.TrainRequest(run=header)
        wants = {"memory_bytes": need * GIB, "priority": priority, "since": since, "wait_minutes": wait_minutes}
        call = Call("trainer", "m", request, None, gpus, **wants)

        async def run():
            async for _ in self.queue.drive(call):
                pass

        task = asyncio.create_task(run(), name=job)
        self.tasks.append(task)
        return task

    async def settle(self):
        for _ in range(40):
            await asyncio.sleep(0.005)

    @property
    def running(self):
        return [job for job, _ in self.ray.driven]

    async def close(self):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


def in_house(test, gpus=1):
    async def main():
        house = House(gpus)
        try:
            await asyncio.wait_for(test(house), 20)
        finally:
            await house.close()
        assert house.ray.count_gpus() == (gpus, float(gpus)), "everything was given back"
        assert not any(house.told.values()), "nobody is said to wait"

    asyncio.run(main())


def test_one_after_the_other_in_their_order():
    async def test(house):
        tasks = [house.submit("first", since=1)]
        await house.settle()
        tasks += [house.submit("third", since=3), house.submit("second", since=2), house.submit("high", priority=10)]
        await house.settle()
        assert house.running == ["first"]
        assert house.told["jobs/high"].position == 1
        assert "held by first (train)" in house.told["jobs/high"].message
        assert house.told["jobs/third"].position == 3
        assert house.told["jobs/third"].reason == job_pb2.Waiting.REASON_OTHERS_FIRST
        house.ray.go_on.set()
        await asyncio.gather(*tasks)
        assert house.running == ["first", "high", "second", "third"]

    in_house(test)


def test_what_needs_no_gpu_waits_for_nobody():
    async def test(house):
        house.submit("large", gpus=1)
        await house.settle()
        house.submit("waits", gpus=1)
        house.submit("prepare", gpus=0)
        await house.settle()
        assert house.running == ["large", "prepare"]

    in_house(test)


def test_halves_share_a_gpu():
    async def test(house):
        for job in ("a", "b", "c"):
            house.submit(job, gpus=0.5)
        await house.settle()
        assert house.ray.driven == [("a", ("cuda:0",)), ("b", ("cuda:0",))]

    in_house(test)


def test_a_job_waits_while_a_foreign_process_holds_the_memory_and_then_goes_on():
    async def test(house):
        house.free["cuda:0"] = 3.0
        task = house.submit("job", need=8)
        await house.settle()
        assert house.running == []
        told = house.told["jobs/job"]
        assert (told.reason, told.processes[0].pid) == (job_pb2.Waiting.REASON_MEMORY_HELD, 4242)
        assert "lm-studio (pid 4242" in told.message
        assert house.ray.count_gpus() == (1, 1.0), "it holds nothing while it waits"
        house.free["cuda:0"] = 20.0
        house.ray.go_on.set()
        await task
        assert house.running == ["job"]

    in_house(test)


def test_who_needs_less_goes_on_meanwhile():
    async def test(house):
        house.free["cuda:0"] = 6.0
        house.submit("large", need=8, since=1)
        house.submit("small", need=4, since=2)
        await house.settle()
        assert house.running == ["small"]

    in_house(test)


def test_a_job_fails_when_it_has_waited_long_enough_and_says_for_whom():
    async def test(house):
        house.free["cuda:0"] = 3.0
        with pytest.raises(DeviceMemoryHeld, match="lm-studio") as caught:
            await house.submit("job", need=8, wait_minutes=0.001)
        assert "lms unload" in caught.value.remedy
        assert not caught.value.retryable

    in_house(test)


def test_another_gpu_is_taken_when_the_first_lacks_memory():
    async def test(house):
        house.free["cuda:0"] = 1.0
        house.submit("job", need=8)
        await house.settle()
        assert house.ray.driven == [("job", ("cuda:1",))]
        assert house.ray.left == {"cuda:0": 1.0, "cuda:1": 0.0}, "the one passed over is free again"

    in_house(test, gpus=2)


def test_a_share_is_not_begun_before_the_memory_of_another_is_known_to_suffice():
    async def test(house):
        house.submit("a", gpus=0.5, need=10)
        house.submit("b", gpus=0.5, need=10)
        house.submit("c", gpus=0.5, need=10)
        await house.settle()
        assert house.running == ["a", "b"]

    in_house(test)

    async def too_much(house):
        house.free["cuda:0"] = 18.0  # a desktop holds the rest; a has taken nothing yet
        house.submit("a", gpus=0.5, need=10)
        await house.settle()
        house.submit("b", gpus=0.5, need=10)
        await house.settle()
        assert house.running == ["a"]

    in_house(too_much)


def test_a_run_that_goes_on_takes_its_gpu_whatever_its_memory():
    """It holds the memory itself: a restarted coordinator attaches to it."""

    async def test(house):
        house.free["cuda:0"] = 0.0
        house.submit("running", need=8, after=7)
        await house.settle()
        assert house.running == ["running"]

    in_house(test)


@pytest.mark.parametrize("raised", [False, True])
def test_the_gpu_of_a_run_whose_stream_broke_is_kept_for_it(raised):
    """The run goes on, and Ray takes its GPU for free."""

    async def test(house):
        lost = types_pb2.Event(failed=types_pb2.Failure(reason="UNAVAILABLE"))
        real = house.ray._drive

        async def breaks(call, devices):
            house.ray._drive = real
            house.ray.driven.append((call.request.run.key.job, devices))
            yield types_pb2.Event(sequence=1, started=types_pb2.Started(pid=1))
            await house.ray.go_on.wait()
            house.ray.go_on.clear()
            if raised:
                raise Unavailable("the attempt's host was lost")
            yield lost

        house.ray._drive = breaks
        task = house.submit("job", since=1)
        await house.settle()
        house.submit("high", priority=10)
        house.ray.go_on.set()
        with suppress(Unavailable):
            await task
        await house.settle()
        assert house.running == ["job"], "nobody else has the GPU"
        house.submit("job", since=1, after=1)
        await house.settle()
        assert house.running == ["job", "job"]

    in_house(test)


def test_a_gpu_is_not_kept_for_ever():
    async def test(house):
        house.queue._back_by["gone", "train", 1] = time.monotonic() + 0.1
        house.submit("job")
        await house.settle()
        house.ray.go_on.set()
        await house.tasks[0]
        assert house.running == ["job"]

    in_house(test)


def test_a_gpu_is_not_kept_for_a_run_that_has_a_successor():
    """Its service was restarted, and has it no more: the next attempt begins at once."""

    async def test(house):
        house.queue._back_by["job", "train", 0] = time.monotonic() + 3600
        house.submit("job")
        await house.settle()
        assert house.running == ["job"]

    in_house(test)


@pytest.mark.parametrize("lacks", [False, True])
def test_who_is_cancelled_while_he_waits_leaves_the_queue(lacks):
    async def test(house):
        house.free["cuda:0"] = 3.0 if lacks else 24.0
        if not lacks:
            house.submit("running")
            await house.settle()
        task = house.submit("job", need=8)
        await house.settle()
        assert house.told["jobs/job"] is not None
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await house.settle()
        assert house.told["jobs/job"] is None

    in_house(test)


def test_a_gpu_in_parts_that_do_not_fit_together_blocks_nobody_for_ever():
    """Two halves of two GPUs are one GPU to count, and none to have."""

    async def test(house):
        house.ray.left = {"cuda:0": 0.5, "cuda:1": 0.5}
        house.submit("whole", gpus=1, since=1)
        await house.settle()
        house.submit("high", gpus=0.5, priority=10)
        await asyncio.sleep(0.3)
        assert house.running == ["high"]
        house.ray.left["cuda:1"] = 1.0
        await asyncio.sleep(0.3)
        assert house.running == ["high", "whole"]
        await house.close()
        house.ray.left = {"cuda:0": 1.0, "cuda:1": 1.0}

    in_house(test, gpus=2)
