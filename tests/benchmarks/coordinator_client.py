"""The client of `make bench-coordinator`, a process of its own: grpc.aio, one channel for each of many users.

    python -m tests.benchmarks.coordinator_client ADDRESS submit|list|watch|attach [ARGUMENT...]

Prints one JSON object: what it measured, in seconds, and the CPU it took itself.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
import uuid

import grpc.aio

from cutoff.spec import parse_job, spec_to_proto
from cutoff.v1 import job_pb2, job_pb2_grpc

CLIENTS = 100
EACH = 10
PAGES = 200
STREAMS = 1000
STREAMS_PER_CHANNEL = 50
"""Below the limit of HTTP/2 streams that many servers set."""
LISTEN_SECONDS = 15.0


def job_spec(name: str, **sections: object) -> job_pb2.JobSpec:
    """A job without a GPU."""
    job = {"name": name, "base_model": "owner/model", "dataset": {"dev": "dev.jsonl"}, "resources": {"gpus": 0}}
    return spec_to_proto(parse_job({**job, "install": {"model_name": name}, **sections}))


def percentile(values: list[float], share: float) -> float:
    """The value that a share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


def channel(address: str) -> grpc.aio.Channel:
    """A connection of its own."""
    return grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])


async def submit(address: str) -> dict[str, object]:
    """CLIENTS users, each submitting EACH jobs one after the other."""
    seconds: list[float] = []

    async def user(number: int) -> None:
        async with channel(address) as own:
            stub = job_pb2_grpc.JobServiceStub(own)
            await own.channel_ready()
            ready.append(number)
            await everybody.wait()
            for each in range(EACH):
                spec = job_spec(f"bench-{number}-{each}")
                began = time.monotonic()
                await stub.SubmitJob(job_pb2.SubmitJobRequest(spec=spec, request_id=str(uuid.uuid4())))
                seconds.append(time.monotonic() - began)

    everybody, ready = asyncio.Event(), []
    users = [asyncio.create_task(user(number)) for number in range(CLIENTS)]
    while len(ready) < CLIENTS:
        await asyncio.sleep(0.05)
    began = time.monotonic()
    everybody.set()
    await asyncio.gather(*users)
    wall = time.monotonic() - began
    return {"p50": percentile(seconds, 0.5), "p99": percentile(seconds, 0.99), "per_second": len(seconds) / wall}


async def pages(address: str) -> dict[str, object]:
    """PAGES pages of 50 jobs, one after the other."""
    seconds, token = [], ""
    async with channel(address) as own:
        stub = job_pb2_grpc.JobServiceStub(own)
        await own.channel_ready()
        for _ in range(PAGES):
            began = time.monotonic()
            page = await stub.ListJobs(job_pb2.ListJobsRequest(page_token=token))
            seconds.append(time.monotonic() - began)
            assert len(page.jobs) == 50, len(page.jobs)
            token = page.next_page_token
    return {"p50": percentile(seconds, 0.5), "p99": percentile(seconds, 0.99)}


async def watch(address: str, name: str) -> dict[str, object]:
    """STREAMS streams of one job: from a run's saying something to its being heard, by each stream."""
    delays: list[float] = []
    listening = False

    async def stream(own: grpc.aio.Channel) -> None:
        nonlocal started
        call = job_pb2_grpc.JobServiceStub(own).WatchJob(job_pb2.WatchJobRequest(name=name))
        async for answer in call:
            now = time.time()
            if not counted.get(call):
                counted[call] = True
                started += 1
            if listening and answer.event.run.event.ByteSize():
                delays.append(now - answer.event.run.event.time.ToMicroseconds() / 1e6)

    started, counted = 0, {}
    channels = [channel(address) for _ in range(STREAMS // STREAMS_PER_CHANNEL)]
    tasks = [asyncio.create_task(stream(channels[number % len(channels)])) for number in range(STREAMS)]
    while started < STREAMS:
        await asyncio.sleep(0.1)
    await asyncio.sleep(3)  # all has been replayed
    listening = True
    await asyncio.sleep(LISTEN_SECONDS)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert len(delays) > STREAMS, f"only {len(delays)} events were heard"
    return {"p50": percentile(delays, 0.5), "p99": percentile(delays, 0.99), "heard": len(delays)}


async def attach(address: str, name: str, since: str) -> dict[str, object]:
    """When a run's first word since a moment is heard, in seconds after that moment."""
    while True:
        try:
            async with channel(address) as own:
                call = job_pb2_grpc.JobServiceStub(own).WatchJob(job_pb2.WatchJobRequest(name=name))
                async for answer in call:
                    said = answer.event.run.event.time.ToMicroseconds() / 1e6
                    if said > float(since):
                        return {"seconds": time.time() - float(since)}
        except grpc.aio.AioRpcError:
            await asyncio.sleep(0.1)


def main() -> None:
    """Prints what one of the measurements gave."""
    address, what, *arguments = sys.argv[1:]
    measured = asyncio.run(
        {"submit": submit, "list": pages, "watch": watch, "attach": attach}[what](address, *arguments)
    )
    print(json.dumps({**measured, "client_cpu": time.process_time()}))


if __name__ == "__main__":
    main()
