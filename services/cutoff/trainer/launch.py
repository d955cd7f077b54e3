"""Trains on all devices of a plan: in this process on one, with a process each (torch's elastic launcher) on several.

Rank 0 writes and reports; its events travel through a pipe to this process. A rank that fails leaves its error in a
file, and the launcher stops the others.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torch.distributed
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from cutoff.errors import CutoffError, as_cutoff_error
from cutoff.process import die_with_parent
from cutoff.rpc import error_of_failure, failure_of
from cutoff.stage.report import Reporter, silent
from cutoff.telemetry import before_import
from cutoff.trainer import recipe
from cutoff.trainer.plan import TrainingPlan
from cutoff.trainer.ranks import Ranks
from cutoff.v1 import types_pb2

_GRACE = 60
"""Seconds that ranks have to write a checkpoint when they are asked to stop."""


def train(plan: TrainingPlan, report: Reporter) -> recipe.TrainingResult:
    """Trains an adapter on the plan's devices; see `cutoff.trainer.recipe.train`."""
    if len(plan.devices) < 2:
        return recipe.train(plan, report)
    report.log(f"training with {len(plan.devices)} processes, on {', '.join(plan.devices)}")
    with tempfile.TemporaryDirectory() as folder, _forwarding(report) as events, _own_signals():
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=len(plan.devices),
            run_id="cutoff",
            rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0",
            local_addr="127.0.0.1",
            max_restarts=0,  # retries are the coordinator's
            start_method="spawn",
            logs_specs=DefaultLogsSpecs(folder, redirects=Std.NONE),
            shutdown_timeout=_GRACE,
        )
        try:
            results = elastic_launch(config, _rank)(plan, events, folder, os.getpid())
        except ChildFailedError as error:
            raise _first_error(Path(folder)) or error from error
        except SignalException as stopped:
            number = stopped.sigval
        else:
            found: recipe.TrainingResult = results[0]
            return found
    signal.raise_signal(number)
    raise AssertionError("a stop that was asked for has no effect here")


def _rank(plan: TrainingPlan, events: Connection, folder: str, launcher: int) -> recipe.TrainingResult:
    """One process: torch's launcher has put its place into the environment."""
    die_with_parent(launcher)
    before_import()
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device = plan.devices[rank]
    report = Reporter(lambda event: events.send_bytes(event.SerializeToString())) if rank == 0 else silent()
    if device == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // count))
    else:
        torch.cuda.set_device(device)
    # All ranks are on this host, so that no other interface is needed, and none is listened on.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
    torch.distributed.init_process_group("gloo" if device == "cpu" else "nccl")
    try:
        return recipe.train(plan, report, Ranks(rank, count, device))
    except Exception as error:
        told = as_cutoff_error(error, folder) or CutoffError(f"{type(error).__name__}: {error}", "this is a bug in cutoff")
        (Path(folder) / f"rank-{rank}").write_bytes(failure_of(told).SerializeToString())
        raise
    finally:
        torch.distributed.destroy_process_group()


@contextmanager
def _forwarding(report: Reporter) -> Iterator[Connection]:
    """A pipe whose events this process's reporter passes on until the block ends."""
    receiving, sending = Pipe(duplex=False)

    def forward() -> None:
        while content := receiving.recv_bytes():
            report.forward(types_pb2.Event.FromString(content))

    thread = threading.Thread(target=forward)
    thread.start()
    try:
        yield sending
    finally:
        sending.send_bytes(b"")
        thread.join()


@contextmanager
def _own_signals() -> Iterator[None]:
    """The launcher handles signals itself and does not give them back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _first_error(folder: Path) -> CutoffError | None:
    """What a rank said before it failed."""
    for path in sorted(folder.glob("rank-*")):
        return error_of_failure(types_pb2.Failure.FromString(path.read_bytes()))
    return None
