"""The runs of one stage service: started once per key, watched by whoever asks, stopped, reported when they die.

A run is one child process. Its events are kept, so that a caller who comes back (a restarted coordinator)
gets what was missed and goes on from there. A run that nobody watches for the length of its lease stops, and so does
one whose process says nothing for that long, and one that a newer attempt takes the place of.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import multiprocessing.connection
import multiprocessing.forkserver
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from cutoff.artifacts import Roots, attempt_folder, sweep_partials
from cutoff.errors import Cancelled, CutoffError, Killed, Lost, NotFound, Refused, Unavailable
from cutoff.process import resident_bytes, stop_group
from cutoff.rpc import failure_of
from cutoff.run_key import RunId, run_id
from cutoff.stage import measures
from cutoff.stage.child import LOG, Assignment, run_child
from cutoff.stage.lease import HEARTBEAT_SECONDS, LEASE_SECONDS
from cutoff.telemetry import logger
from cutoff.telemetry.rotation import limit_bytes, rotate
from cutoff.v1 import run_pb2, types_pb2

_LOG = logger(__name__)
_KEPT = 100
"""Ended runs whose events are kept for a caller who comes back."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Times, in seconds."""

    grace: float = 60.0
    """Between SIGTERM and SIGKILL: long enough to clean up."""
    lease: float = LEASE_SECONDS
    """How long a run goes on with nobody watching, or with a process that says nothing."""
    heartbeat: float = HEARTBEAT_SECONDS
    """Between two heartbeats to whoever watches a run of which there is no news."""
    exit: float = 10.0
    """Between a child's last event and its end."""
    linger: float = 60.0
    """How long the series of a run that has ended can still be read: longer than Prometheus' interval."""
    sample: float = 5.0
    """Between two looks at a run's memory."""


@dataclass(eq=False)
class _Run:
    key: types_pb2.RunKey
    process: multiprocessing.process.BaseProcess
    lifeline: Connection
    devices: Sequence[str]
    folder: Path
    """The attempt's own: what the run leaves half-written there is removed when it has ended."""
    started: float = field(default_factory=time.monotonic)
    start_time: Timestamp = field(default_factory=Timestamp)
    events: list[types_pb2.Event] = field(default_factory=list)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)
    ended: bool = False
    stopped_for: CutoffError | None = None
    """Why it was told to stop, if it was."""
    watchers: int = 0
    watched: float = field(default_factory=time.monotonic)
    """When a watcher last took something; one that is gone may be noticed later (this process was stopped, say)."""
    heard: float = field(default_factory=time.monotonic)
    """When its process last said something."""

    @property
    def pid(self) -> int:
        """The process id of the child, which is also its process group."""
        assert self.process.pid is not None, "a run is made of a started process"
        return self.process.pid

    async def comes_to(self, happened: Callable[[], bool], seconds: float) -> bool:
        """Waits for something that its events bring about; False when that took longer."""
        try:
            async with asyncio.timeout(seconds), self.news:
                await self.news.wait_for(happened)
        except TimeoutError:
            return False
        return True

    def goes_beyond(self, after: int) -> bool:
        """Whether there are events after a sequence number."""
        return len(self.events) > after

    def describe(self) -> run_pb2.Run:
        state = run_pb2.Run.STATE_RUNNING
        if self.ended:
            finished = self.events[-1].WhichOneof("kind") == "finished"
            state = run_pb2.Run.STATE_SUCCEEDED if finished else run_pb2.Run.STATE_FAILED
        return run_pb2.Run(
            key=self.key,
            state=state,
            pid=self.pid,
            devices=self.devices,
            start_time=self.start_time,
            last_sequence=len(self.events),
        )


class Runs:
    """Starts, watches and stops runs. Everything but the reading of pipes happens on one event loop.

    Args:
        service: The service's name, for logs.
        roots: Given to the children.
        locks: The host's folder of device locks.
        preload: Modules a forkserver imports once, so that a child starts in milliseconds; none means
            that each child is spawned (for drivers that do not survive a fork).
        limits: Grace and lease.
    """

    def __init__(
        self, service: str, roots: Roots, locks: Path, preload: Sequence[str] = (), limits: Limits | None = None
    ) -> None:
        self._service = service
        self._roots = roots
        self._locks = locks
        self._limits = limits or Limits()
        self._context: ForkServerContext | SpawnContext
        if preload:
            self._context = multiprocessing.get_context("forkserver")
            self._context.set_forkserver_preload(list(preload))
        else:
            self._context = multiprocessing.get_context("spawn")
        self._forks = bool(preload)
        self._runs: dict[RunId, _Run] = {}
        self._never: set[RunId] = set()
        """Keys that were cancelled before a run of them began."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._log_bytes = limit_bytes()

    async def warm_up(self) -> None:
        """Starts the forkserver, which imports what is preloaded."""
        if self._forks:
            await asyncio.to_thread(multiprocessing.forkserver.ensure_running)

    async def run(self, request: Any, target: str) -> AsyncIterator[types_pb2.Event]:
        """Starts the run a request's header names, or attaches to it; yields its events to the last.

        Args:
            request: A proto with a RunHeader field `run`.
            target: "module:function" of the work.

        An event without news is a heartbeat: the run is there.

        Raises:
            InvalidInput: The key holds no plain names.
            Unavailable: The service is stopping.
            Lost: The run began in an earlier life of this service, and ended with it.
            Refused: A newer attempt has taken its place.
        """
        await self.warm_up()
        run = self._runs.get(run_id(request.run.key))
        if run is None:
            await self._stop_earlier(request.run.key)
            run = self._runs.get(run_id(request.run.key)) or self._start(request, target)
        async for event in self._watch(run, request.run.after_sequence):
            yield event

    def all(self) -> list[run_pb2.Run]:
        """The runs this service knows, the running ones first."""
        return sorted((run.describe() for run in self._runs.values()), key=lambda run: run.state)

    async def cancel(self, key: types_pb2.RunKey) -> run_pb2.Run:
        """Stops a run; returns when none of its processes is left.

        Raises:
            NotFound: No run has this key; a call that comes late and would start it is refused.
        """
        run = self._runs.get(run_id(key))
        if run is None:
            self._never.add(run_id(key))
            raise NotFound(f"no run {_name(key)} here")
        await self._stop(run, Cancelled("the run was cancelled"))
        return run.describe()

    def said(self, key: types_pb2.RunKey, after: int) -> list[types_pb2.Event]:
        """The events of a run after a sequence number, without progress, which nobody keeps."""
        events = self._runs[run_id(key)].events[after:]
        return [event for event in events if event.WhichOneof("kind") != "progress"]

    async def close(self) -> None:
        """Stops every run; new ones are refused."""
        self._closing = True
        stopping = Unavailable("the service was stopped")
        await asyncio.gather(*(self._stop(run, stopping) for run in self._runs.values()))

    async def _stop_earlier(self, key: types_pb2.RunKey) -> None:
        """Stops what is left of attempts that a new one takes the place of: they hold the device it needs.

        Raises:
            Refused: The attempt itself has been replaced.
        """
        others = [run for run in self._runs.values() if (run.key.job, run.key.stage) == (key.job, key.stage)]
        if any(run.key.attempt > key.attempt for run in others):
            raise Refused(f"a newer attempt has taken the place of {_name(key)}")
        replaced = Cancelled("a newer attempt took its place")
        await asyncio.gather(*(self._stop(run, replaced) for run in others if not run.ended))

    def _start(self, request: Any, target: str) -> _Run:
        if self._closing:
            raise Unavailable("the service is stopping", "retry when it is back")
        key = request.run.key
        if run_id(key) in self._never:
            raise Cancelled(f"the run {_name(key)} was cancelled before it began")
        folder = attempt_folder(self._roots.artifacts, key.job, key.stage, key.attempt)
        if (folder / LOG).exists():
            raise Lost(f"the run {_name(key)} was lost with an earlier life of this service", "it is tried again")
        assignment = Assignment(self._service, target, request, self._roots, self._locks)
        events, child_events = self._context.Pipe(duplex=False)
        child_lifeline, lifeline = self._context.Pipe(duplex=False)
        process = self._context.Process(target=run_child, args=(assignment, child_events, child_lifeline), daemon=False)
        process.start()
        child_events.close()
        child_lifeline.close()
        run = _Run(key, process, lifeline, list(request.run.devices), folder)
        run.start_time.GetCurrentTime()
        self._forget_old()
        self._runs[run_id(key)] = run
        measures.run_started(key)
        self._background(self._sample(run))
        _LOG.info("run started", job=key.job, stage=key.stage, attempt=key.attempt, pid=run.pid)
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._read, args=(run, events, loop), daemon=True).start()
        return run

    def _read(self, run: _Run, events: Connection, loop: asyncio.AbstractEventLoop) -> None:
        """On a thread of the run's own: passes its events on; the last one only when its processes are gone."""
        last: types_pb2.Event | None = None
        try:
            for event in _received(events, run.process):
                run.heard = time.monotonic()
                if event.HasField("heartbeat"):
                    continue
                if event.WhichOneof("kind") in ("finished", "failed"):
                    last = event
                else:
                    _tell(loop, self._add(run, event))
            run.process.join(self._limits.exit)
        finally:
            stop_group(run.pid, grace=0)
            run.process.join()
            events.close()
            run.lifeline.close()
            try:
                sweep_partials(run.folder)
            except OSError as error:
                _LOG.warning("half-written files were left behind", job=run.key.job, error=str(error))
            _tell(loop, self._end(run, last or _death(run)))

    async def _add(self, run: _Run, event: types_pb2.Event, last: bool = False) -> None:
        async with run.news:
            event.sequence = len(run.events) + 1
            run.events.append(event)
            run.ended = last
            run.news.notify_all()
        if event.WhichOneof("kind") == "started":
            measures.devices_leased(run.key, run.devices)
        measures.observe_run(run.key, event)

    async def _end(self, run: _Run, last: types_pb2.Event) -> None:
        if run.stopped_for is not None and last.WhichOneof("kind") == "failed":
            last.failed.CopyFrom(failure_of(run.stopped_for))
        await self._add(run, last, last=True)
        outcome = last.failed.reason.lower() if last.HasField("failed") else "succeeded"
        measures.run_ended(run.key, outcome, time.monotonic() - run.started)
        asyncio.get_running_loop().call_later(self._limits.linger, self._forget_series, run)
        _LOG.info("run ended", job=run.key.job, stage=run.key.stage, attempt=run.key.attempt, outcome=outcome)

    async def _sample(self, run: _Run) -> None:
        """Measures a run's memory while it runs, keeps its log small, and stops it when it is silent."""
        while not run.ended:
            if time.monotonic() - run.heard > self._limits.lease:
                await self._stop(run, Lost(f"the run's process said nothing for {self._limits.lease:g} s"))
                return
            await asyncio.to_thread(rotate, run.folder / LOG, self._log_bytes)
            measures.MEMORY.labels(run.key.job, run.key.stage).set(await asyncio.to_thread(resident_bytes, run.pid))
            await run.comes_to(lambda: run.ended, self._limits.sample)

    def _forget_series(self, run: _Run) -> None:
        """Removes an ended run's series, unless a later attempt writes them by now."""
        key = run.key
        again = any((other.key.job, other.key.stage) == (key.job, key.stage) for other in self._active())
        if not again:
            measures.forget_run(key)

    def _active(self) -> list[_Run]:
        return [run for run in self._runs.values() if not run.ended]

    async def _watch(self, run: _Run, after: int) -> AsyncIterator[types_pb2.Event]:
        run.watchers += 1
        run.watched = time.monotonic()
        try:
            if after >= len(run.events) and not run.ended and after:
                yield _heartbeat()  # who comes back hears at once that the run is there
            while True:
                for event in run.events[after:]:
                    after += 1
                    yield event
                    run.watched = time.monotonic()
                if run.ended and after >= len(run.events):
                    return
                if not await run.comes_to(partial(run.goes_beyond, after), self._limits.heartbeat):
                    yield _heartbeat()
                run.watched = time.monotonic()
        finally:
            run.watchers -= 1
            if not run.watchers and not run.ended:
                self._background(self._expire(run))

    async def _expire(self, run: _Run) -> None:
        """Stops a run whose callers have all gone, unless one comes back within the lease."""
        while not run.watchers and not run.ended:
            left = run.watched + self._limits.lease - time.monotonic()
            if left <= 0:
                await self._stop(run, Unavailable("nobody watched the run for the length of its lease"))
                return
            await asyncio.sleep(left)

    async def _stop(self, run: _Run, cause: CutoffError) -> None:
        if not run.ended:
            _LOG.info("stopping a run", job=run.key.job, stage=run.key.stage, cause=cause.message)
            run.stopped_for = run.stopped_for or cause
            await asyncio.to_thread(stop_group, run.pid, self._limits.grace)
            async with run.news:
                await run.news.wait_for(lambda: run.ended)

    def _background(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _forget_old(self) -> None:
        ended = [key for key, run in self._runs.items() if run.ended]
        for key in ended[: max(0, len(ended) - _KEPT)]:
            del self._runs[key]


def _received(events: Connection, process: multiprocessing.process.BaseProcess) -> Iterator[types_pb2.Event]:
    """A child's events until it closes the pipe or ends; what it was saying when it was killed is dropped."""
    while multiprocessing.connection.wait([events, process.sentinel]):
        try:
            if not events.poll():
                return
            yield types_pb2.Event.FromString(events.recv_bytes())
        except (EOFError, OSError, DecodeError):
            return


def _heartbeat() -> types_pb2.Event:
    return types_pb2.Event(heartbeat=types_pb2.Heartbeat())


def _death(run: _Run) -> types_pb2.Event:
    """The last event of a child that died without one."""
    code = run.process.exitcode or 0
    if code == -signal.SIGKILL:
        failure = failure_of(
            Killed(
                f"the {run.key.stage} process was killed by SIGKILL, most likely by the kernel because memory ran out",
                "free memory on the host, or use a smaller batch_size, quantization: 4bit or a smaller model",
            )
        )
    elif code < 0:
        name = signal.Signals(-code).name
        failure = failure_of(Killed(f"the {run.key.stage} process died of {name}", f"see {run.folder}/log.txt"))
    else:
        failure = failure_of(
            CutoffError(
                f"the {run.key.stage} process ended without a word (exit code {code})", f"see {run.folder}/log.txt"
            )
        )
    event = types_pb2.Event(failed=failure)
    event.time.GetCurrentTime()
    return event


def _tell(loop: asyncio.AbstractEventLoop, news: Coroutine[Any, Any, None]) -> None:
    """Runs a coroutine on the loop from another thread, and waits for it; in order, and not too fast."""
    if loop.is_closed():  # the service is gone, and nobody is left to tell
        news.close()
        return
    asyncio.run_coroutine_threadsafe(news, loop).result()


def _name(key: types_pb2.RunKey) -> str:
    return f"{key.job}/{key.stage}/{key.attempt}"
