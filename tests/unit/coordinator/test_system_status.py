"""What the coordinator says of the system."""

import asyncio

from cutoff.coordinator.attempts import Addresses
from cutoff.coordinator.system_status import SystemStatus
from cutoff.rpc import Door, ServerSecurity
from cutoff.rpc.server import started
from cutoff.v1 import job_pb2, operator_pb2

Service = operator_pb2.ServiceStatus


class Drains:
    on = True

    def attempts(self, state):
        return {job_pb2.Attempt.STATE_RUNNING: 2, job_pb2.Attempt.STATE_WAITING: 3}[state]


def test_services_attempts_disks_and_gpus(store, spec, tmp_path):
    store.submit(spec, "r")

    async def main():
        closed = Door("the merger")
        await closed.close("stopping")
        there = [f"unix:{tmp_path}/{name}.sock" for name in ("trainer", "merger")]
        none = f"unix:{tmp_path}/none.sock"
        addresses = Addresses(*there, none, none)
        disks = {"artifacts": tmp_path, "datasets": tmp_path / "none"}
        status = SystemStatus(store, Drains(), addresses, disks, lambda: (2.0, 1.0))
        security = ServerSecurity(None, None)
        async with (
            started(there[0], lambda server: [], security, 0.1),
            started(there[1], lambda server: [], security, 0.1, closed),
        ):
            return await status.now()

    told = asyncio.run(main())
    states = {service.name: service.state for service in told.services}
    assert states == {
        "trainer": Service.STATE_SERVING,
        "merger": Service.STATE_NOT_SERVING,
        "gguf-converter": Service.STATE_UNREACHABLE,
        "evaluator": Service.STATE_UNREACHABLE,
    }
    assert all(service.message for service in told.services if service.state == Service.STATE_UNREACHABLE)
    assert (told.draining, told.unfinished_jobs, told.running_attempts, told.waiting_attempts) == (True, 1, 2, 3)
    assert [disk.root for disk in told.disks] == ["artifacts"]
    assert told.disks[0].free_bytes > 0
    assert (told.gpus, told.free_gpus) == (2, 1)
