"""The coordinator as a process: Ray, the store, the job service, from start to graceful stop.

    cutoff-coordinator [--listen 127.0.0.1:50051] [--metrics-port 9101]
    cutoff-coordinator backup FILE
    cutoff-coordinator restore FILE [--replace]

Environment:
    CUTOFF_LISTEN, CUTOFF_METRICS_PORT, CUTOFF_METRICS_ADDRESS: as the flags, and where metrics are served.
    CUTOFF_STATE: the database and Ray's token; default $CUTOFF_ARTIFACTS/state. Or CUTOFF_DATABASE_URL.
    RAY_ADDRESS: a cluster to join; without one, Ray is started here.
    CUTOFF_GPUS: how many GPUs this host lends to jobs, where the coordinator itself sees none.
    CUTOFF_RETRY_SECONDS: the pauses before what failed for want of infrastructure is tried again; default "1 5 15".
    CUTOFF_PAUSE_WHILE_LMSTUDIO: LM Studio's server, http://localhost:1234 say: trainings are paused while it has a
        model loaded. LM_API_TOKEN: its token, if it wants one.
    CUTOFF_LEASE_SECONDS: how long runs go on without their coordinator (`stage/lease.py`); default 600.
    CUTOFF_RAY_HOST: the name by which other hosts reach this one's Ray.
    CUTOFF_HOST: this host's name among several; default "head". CUTOFF_CPUS: how many attempts without a GPU it takes.
    CUTOFF_MODELS_HOST: the host that installs, since it has the models folder; default this one. "any": all share it.
    CUTOFF_RETENTION_DAYS: intermediate artifacts of jobs that ended longer ago are removed; default: never.
    CUTOFF_TRAINER_ADDRESS, CUTOFF_MERGER_ADDRESS, CUTOFF_GGUF_CONVERTER_ADDRESS, CUTOFF_EVALUATOR_ADDRESS
    The roots (`artifacts.Roots`) and the security variables (`rpc/security.py`).
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import grpc.aio

from cutoff.artifacts import Roots, close_folders, name_artifacts
from cutoff.coordinator import admission, lmstudio_watch, scheduler, stage_services
from cutoff.coordinator.attempts import Services
from cutoff.coordinator.backup import back_up, restore
from cutoff.coordinator.draining import Draining
from cutoff.coordinator.garbage import Garbage
from cutoff.coordinator.gpu_queue import GpuQueue
from cutoff.coordinator.hosts import Addresses
from cutoff.coordinator.jobs import Jobs
from cutoff.coordinator.journal import Journal
from cutoff.coordinator.measures import watch_gpus
from cutoff.coordinator.operator_service import OperatorServicer
from cutoff.coordinator.service import JobServicer
from cutoff.coordinator.store import Store
from cutoff.coordinator.system_status import SystemStatus
from cutoff.errors import CutoffError, Refused
from cutoff.rpc import Door, serve_until_stopped
from cutoff.spec import JobSpec, close_servers
from cutoff.telemetry import configure_logs, logger, serve_metrics
from cutoff.v1 import job_pb2_grpc, operator_pb2_grpc

_RAY_SECONDS = 0.5
"""Between two looks at whether Ray's processes are there."""

_LOG = logger("cutoff.coordinator.main")  # as a program, its __name__ is __main__


def main() -> None:
    """The console script cutoff-coordinator."""
    parser = argparse.ArgumentParser(prog="cutoff-coordinator", description="The coordinator of cutoff.")
    listen = os.environ.get("CUTOFF_LISTEN", "127.0.0.1:50051")
    metrics = int(os.environ.get("CUTOFF_METRICS_PORT", "9101"))
    parser.add_argument("--listen", default=listen, help="host:port or unix:/path (default: %(default)s)")
    parser.add_argument("--metrics-port", type=int, default=metrics, help="0 takes a free one (default: %(default)s)")
    commands = parser.add_subparsers(dest="command", metavar="backup | restore")
    backing_up = commands.add_parser("backup", help="copy the job store into a file, while the coordinator runs")
    backing_up.add_argument("file", type=Path)
    restoring = commands.add_parser("restore", help="put such a copy in the place of the job store")
    restoring.add_argument("file", type=Path)
    restoring.add_argument("--replace", action="store_true", help="lose the jobs that are in the store")
    options = parser.parse_args()
    configure_logs("coordinator")
    close_folders()
    close_servers()
    roots = Roots.from_environment()
    state = Path(os.environ.get("CUTOFF_STATE") or roots.artifacts / "state")
    if options.command:
        _keep_copies(options, state)
        return
    address = os.environ.get("CUTOFF_METRICS_ADDRESS", "127.0.0.1")
    port = serve_metrics("coordinator", options.metrics_port, address, {"artifacts": roots.artifacts})
    _LOG.info("metrics", port=port)
    state.mkdir(parents=True, exist_ok=True)
    try:
        lock = _only_one(state)
        environ = os.environ.get
        scheduler.start_ray(environ("RAY_ADDRESS"), state, environ("CUTOFF_GPUS"), environ("CUTOFF_RAY_HOST"))
        watch_gpus(scheduler.count_gpus)
        asyncio.run(_serve(options.listen, roots, state))
    except CutoffError as error:
        sys.exit(f"error: {error}")
    finally:
        scheduler.stop_ray()
    os.close(lock)


def _keep_copies(options: argparse.Namespace, state: Path) -> None:
    """Backs the job store up, or restores it."""
    try:
        if options.command == "backup":
            print(f"{back_up(_store_url(state), options.file)} jobs are in {options.file}")
            return
        state.mkdir(parents=True, exist_ok=True)
        lock = _only_one(state)
        print(f"{restore(_store_url(state), options.file, options.replace)} jobs are in the store again")
        os.close(lock)
    except CutoffError as error:
        sys.exit(f"error: {error}")


def _store_url(state: Path) -> str:
    return os.environ.get("CUTOFF_DATABASE_URL") or f"sqlite:///{state / 'jobs.db'}"


async def _serve(listen: str, roots: Roots, state: Path) -> None:
    store = Store(_store_url(state))
    journal = Journal(store)
    door, addresses = Door("the coordinator"), Addresses.from_environment()
    queue = GpuQueue(scheduler, stage_services.read_devices, journal.waits)
    services = Services(
        addresses,
        queue.drive,
        stage_services.cancel_run,
        stage_services.list_runs,
        stage_services.check_install,
        stage_services.check_model,
        stage_services.uninstall,
        roots.artifacts,
        scheduler.hosts(os.environ.get("CUTOFF_MODELS_HOST", "")),
        name_artifacts(roots.artifacts),
        door.wait_open,
    )
    jobs = Jobs(journal, services)
    draining, garbage = Draining(door, jobs, store), Garbage(journal, jobs, roots.artifacts)
    disks = {"datasets": roots.datasets, "artifacts": roots.artifacts}
    status = SystemStatus(store, draining, addresses, disks, scheduler.count_gpus)

    def admit(spec: JobSpec) -> None:
        admission.check(spec, roots)
        scheduler.check_resources(spec.resources.gpus)

    def register(server: grpc.aio.Server) -> Sequence[str]:
        job_pb2_grpc.add_JobServiceServicer_to_server(JobServicer(journal, jobs, admit, roots.artifacts, door), server)
        operator = OperatorServicer(journal, draining, garbage, status, roots.artifacts)
        operator_pb2_grpc.add_OperatorServiceServicer_to_server(operator, server)
        return ["cutoff.v1.JobService", "cutoff.v1.OperatorService"]

    jobs.take_up()
    days = _retention_days()
    watching = [asyncio.create_task(_restart_when_ray_dies()), *_watch_lmstudio(jobs, store)]
    if days is not None:
        watching.append(asyncio.create_task(garbage.keep_collecting(days)))

    async def stop() -> None:
        for task in watching:
            task.cancel()
        await jobs.suspend()

    await serve_until_stopped(listen, register, stop, door, state=state)
    store.close()


def _watch_lmstudio(jobs: Jobs, store: Store) -> list[asyncio.Task[None]]:
    """Begins to make room for LM Studio, if that is wanted."""
    url, token = os.environ.get("CUTOFF_PAUSE_WHILE_LMSTUDIO", ""), os.environ.get("LM_API_TOKEN", "")
    if not url:
        return []
    return [asyncio.create_task(lmstudio_watch.watch(jobs, store.unfinished, url, token))]


async def _restart_when_ray_dies() -> None:
    """Replaces this process by a new coordinator, with a Ray of its own, when one of Ray's processes has ended.

    As after any other crash, the new one takes up the jobs: their runs are in the services, and go on.
    """
    while not (dead := scheduler.dead_processes()):  # noqa: ASYNC110 - nobody would set an event
        await asyncio.sleep(_RAY_SECONDS)
    _LOG.error("a process of Ray died; starting again", processes=dead)
    scheduler.kill_processes()
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, sys.orig_argv)  # the other files and sockets are closed by it


def _retention_days() -> float | None:
    """CUTOFF_RETENTION_DAYS; None when nothing is removed by itself."""
    given = os.environ.get("CUTOFF_RETENTION_DAYS", "")
    if not given:
        return None
    try:
        days = float(given)
    except ValueError:
        days = -1.0
    if not 0 <= days < math.inf:
        raise Refused(f"CUTOFF_RETENTION_DAYS={given} is not a number of days", "set it to 30, say, or unset it")
    return days


def _only_one(state: Path) -> int:
    """Holds the state folder's lock: two coordinators would take up each other's jobs."""
    descriptor = os.open(state / "coordinator.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Refused(
            f"another coordinator runs on {state}", "stop it, or set CUTOFF_STATE to another folder"
        ) from None
    return descriptor


if __name__ == "__main__":
    main()
