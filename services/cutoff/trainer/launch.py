"""Trains on all devices of a plan: in this process on one, with a process each (torch's elastic launcher) on several.

Rank 0 writes and reports; its events travel through a pipe to this process. A rank that fails leaves its error in a
file, and the launcher stops the others.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
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
from cutoff.trainer.delivery import TrainingResult
from cutoff.trainer.model import hardware
from cutoff.trainer.plan import TrainingPlan
from cutoff.trainer.ranks import Ranks
from cutoff.v1 import types_pb2

_CAUSE, _CONSEQUENCE = "cause", "consequence"
_GRACE = 60
"""Seconds that ranks have to write a checkpoint when they are asked to stop."""


def train(plan: TrainingPlan, report: Reporter) -> TrainingResult:
    """Trains an adapter on the plan's devices; see `cutoff.trainer.recipe.train`."""
    if len(plan.devices) < 2:
        return recipe.train(plan, report)
    report.log(f"training with {len(plan.devices)} processes, on {', '.join(plan.devices)}")
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # the ranks meet in a file, see `_rank`
    with _own_temporary_folder() as folder, _forwarding(report) as events, _own_signals():
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=len(plan.devices),
            run_id="cutoff",
            rdzv_backend="c10d",
            rdzv_endpoint=str(Path(folder) / "rendezvous"),
            rdzv_configs={"store_type": "file"},  # nothing listens: a store on a port would unpickle what it is sent
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
            found: TrainingResult = results[0]
            return found
    signal.raise_signal(number)
    raise AssertionError("a stop that was asked for has no effect here")


def _rank(plan: TrainingPlan, events: Connection, folder: str, launcher: int) -> TrainingResult:
    """One process: torch's launcher has put its place into the environment."""
    die_with_parent(launcher)
    before_import()
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    on_cpu = plan.devices[rank] == "cpu"
    device = hardware(plan.devices[rank:]).device  # from here on it is the only one that this process sees
    report = Reporter(lambda event: events.send_bytes(event.SerializeToString())) if rank == 0 else silent()
    if on_cpu:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // count))
    # All ranks are on this host: what they exchange need not leave it.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
    store = f"file://{folder}/ranks"
    torch.distributed.init_process_group("gloo" if on_cpu else "nccl", init_method=store, rank=rank, world_size=count)
    try:
        return recipe.train(replace(plan, devices=(str(device),)), report, Ranks(rank, count, str(device)))
    except Exception as error:
        _tell(error, Path(folder), rank)
        raise
    finally:
        torch.distributed.destroy_process_group()


@contextmanager
def _forwarding(report: Reporter) -> Iterator[Connection]:
    """A pipe whose events this process's reporter passes on until the block ends."""
    receiving, sending = Pipe(duplex=False)

    def forward() -> None:
        with contextlib.suppress(EOFError, OSError):  # the last end is closed, perhaps in the middle of an event
            while True:
                report.forward(types_pb2.Event.FromString(receiving.recv_bytes()))

    thread = threading.Thread(target=forward, daemon=True)
    thread.start()
    try:
        yield sending
    finally:
        sending.close()
        thread.join(_GRACE)


@contextmanager
def _own_temporary_folder() -> Iterator[str]:
    """A folder of this user's alone, for all temporary files of this process until the block ends.

    torch.multiprocessing takes a file name below the temporary folder for each rank, unpickles what is there when
    the rank fails, and leaves it.
    """
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="cutoff-ranks-") as folder:
        tempfile.tempdir = folder
        try:
            yield folder
        finally:
            tempfile.tempdir = before


@contextmanager
def _own_signals() -> Iterator[None]:
    """The launcher handles signals itself and does not give them back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell(error: Exception, folder: Path, rank: int) -> None:
    """Leaves a rank's error where the launcher finds it."""
    known = as_cutoff_error(error, str(folder))
    told = known or CutoffError(f"{type(error).__name__}: {error}", "this is a bug in cutoff")
    kind = _CAUSE if known else _CONSEQUENCE
    (folder / f"{kind}-{rank}").write_bytes(failure_of(told).SerializeToString())


def _first_error(folder: Path) -> CutoffError | None:
    """What a rank failed with: an error of ours before one that a lost neighbour may have caused, then the oldest."""
    for kind in (_CAUSE, _CONSEQUENCE):
        for path in sorted(folder.glob(f"{kind}-*"), key=lambda path: path.stat().st_mtime_ns):
            return error_of_failure(types_pb2.Failure.FromString(path.read_bytes()))
    return None
