"""A server that drains: new work refused, health says so, and it can go on."""

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cutoff.errors import Unavailable
from cutoff.rpc import Door, ServerSecurity
from cutoff.rpc.server import started

Status = health_pb2.HealthCheckResponse


def test_health_follows_the_door(tmp_path):
    async def main():
        door = Door("the coordinator")
        address = f"unix:{tmp_path}/s.sock"
        async with (
            started(address, lambda server: ["a.Service"], ServerSecurity(None, None), 0.1, door),
            grpc.aio.insecure_channel(address) as channel,
        ):
            stub = health_pb2_grpc.HealthStub(channel)

            async def health():
                checks = [stub.Check(health_pb2.HealthCheckRequest(service=name)) for name in ("", "a.Service")]
                return {(await check).status for check in checks}

            assert await health() == {Status.SERVING}
            door.require_open()
            await door.close("draining")
            assert await health() == {Status.NOT_SERVING}
            with pytest.raises(Unavailable, match="the coordinator is draining") as refused:
                door.require_open()
            assert refused.value.retryable
            waiting = asyncio.create_task(door.wait_open())
            await asyncio.sleep(0.01)
            assert not waiting.done()
            await door.open()
            await waiting
            assert await health() == {Status.SERVING}

    asyncio.run(main())
