"""Whatever comes in whatever order: late, repeated and foreign events of runs, retries, ends, restarts."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from cutoff.coordinator.job import (
    LEGAL,
    LEGAL_ATTEMPT,
    OPEN,
    TERMINAL,
    IllegalTransition,
    StaleEvent,
)
from cutoff.coordinator.journal import Journal
from cutoff.coordinator.store import Store
from cutoff.v1 import job_pb2, types_pb2

STAGES = ("train", "evaluate-merged", "install")
RESULTS = {
    "train": {"adapter": "a"},
    "evaluate-merged": {"sets": {"validation": {"retain_correct": {"count": 1, "total": 2}}}},
    "install": {"path": "/models/m.gguf", "sha256": "1" * 64},
}

_stages = st.sampled_from(STAGES)
_attempts = st.integers(1, 4)
_sequences = st.integers(1, 6)
_steps = st.one_of(
    st.tuples(st.just("open"), _stages),
    st.tuples(
        st.just("event"),
        _stages,
        _attempts,
        _sequences,
        st.sampled_from(["started", "artifact", "progress", "finished", "failed", "cancelled"]),
    ),
    st.tuples(st.just("move"), st.sampled_from(list(LEGAL))),
    st.tuples(st.just("restart")),
)


def _event(kind: str, stage: str, sequence: int) -> types_pb2.Event:
    event = types_pb2.Event(sequence=sequence)
    if kind == "started":
        event.started.pid = 1
    elif kind == "artifact":
        event.artifact.path = f"{sequence}"
    elif kind == "progress":
        event.progress.step = sequence
    elif kind == "finished":
        event.finished.result.update(RESULTS[stage])
    else:
        event.failed.reason = "CANCELLED" if kind == "cancelled" else "LOST"
    return event


def _take(journal: Journal, name: str, step: tuple) -> None:
    """One step, as the coordinator or a service that is late might make it."""
    kind, *rest = step
    try:
        if kind == "open":
            journal.open_attempt(name, *rest)
        elif kind == "move":
            journal.move(name, *rest)
        elif kind == "event":
            stage, attempt, sequence, said = rest
            key = types_pb2.RunKey(job=name.removeprefix("jobs/"), stage=stage, attempt=attempt)
            journal.run_event(name, key, _event(said, stage, sequence))
    except IllegalTransition:
        pass


def _check(before: job_pb2.Job, after: job_pb2.Job) -> None:
    assert after.state == before.state or after.state in LEGAL[before.state]
    assert len(after.attempts) - len(before.attempts) in (0, 1)
    for old, new in zip(before.attempts, after.attempts, strict=False):
        assert new.state == old.state or new.state in LEGAL_ATTEMPT[old.state]
        assert new.last_event >= old.last_event
        if old.state not in OPEN:
            assert new == old, "an attempt that has ended stays as it is"
    for stage in STAGES:
        attempts = [attempt for attempt in after.attempts if attempt.key.stage == stage]
        assert [attempt.key.attempt for attempt in attempts] == list(range(1, len(attempts) + 1))
        assert all(attempt.state not in OPEN for attempt in attempts[:-1]), "only the newest may be open"
        succeeded = [attempt for attempt in attempts if attempt.state == job_pb2.Attempt.STATE_SUCCEEDED]
        drawn = {"install": bool(after.result.installed_path), "evaluate-merged": bool(after.result.evaluations)}
        assert drawn.get(stage, bool(succeeded)) == bool(succeeded), "a result and what is drawn from it come together"
    if after.state in TERMINAL and before.state not in TERMINAL:
        assert not [attempt for attempt in after.attempts if attempt.state in OPEN]
    for attempt in after.attempts:
        told = [artifact.path for artifact in attempt.artifacts]
        assert len(told) == len(set(told)), "nothing is taken in twice"


@settings(max_examples=60, deadline=None)
@given(st.lists(_steps, min_size=1, max_size=25))
def test_any_interleaving_makes_legal_transitions_only(steps):
    async def main(url: str) -> None:
        store = Store(url)
        journal = Journal(store)
        spec = job_pb2.JobSpec(name="demo")
        name = journal.store.submit(spec, "r1")[0].name
        for step in steps:
            before = store.get(name)
            if step == ("restart",):
                store.close()
                store = Store(url)
                journal = Journal(store)
                assert store.get(name) == before
            _take(journal, name, step)
            after = store.get(name)
            _check(before, after)
            if after == before:
                continue
            assert [event.sequence for event in store.events(name, 0)] == list(range(1, after.last_sequence + 1))
        assert journal.store.submit(spec, "r1")[0].name == name
        store.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(f"sqlite:///{Path(folder) / 'jobs.db'}"))


def test_an_event_of_an_attempt_that_was_replaced_is_refused_and_changes_nothing(store, spec):
    async def main() -> None:
        journal = Journal(store)
        name = journal.store.submit(spec, "r1")[0].name
        first = journal.open_attempt(name, "train")
        journal.run_event(name, first, _event("failed", "train", 1))
        journal.open_attempt(name, "train")
        before = store.get(name)
        for kind in ("artifact", "progress", "finished"):
            try:
                journal.run_event(name, first, _event(kind, "train", 9))
            except StaleEvent:
                continue
            raise AssertionError(f"{kind} was taken in")
        assert store.get(name) == before

    asyncio.run(main())
