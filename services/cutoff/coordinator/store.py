"""Durable jobs: what was acknowledged survives a crash. SQLite in WAL mode, through SQLAlchemy.

Two tables: `jobs` holds each job's record (the proto) with the columns that are searched by, `events` what
happened to it. A change of a job and the event that tells of it are one transaction. The tables have versions
(`schema.py`); PostgreSQL is a URL away.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from google.protobuf import json_format
from sqlalchemy import LargeBinary, Select, create_engine, event, func, select
from sqlalchemy.engine import Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from cutoff.coordinator.job import LEGAL, TERMINAL, job_id, new_job
from cutoff.coordinator.schema import bring_up_to_date
from cutoff.errors import AlreadyExists, NotFound, Unavailable
from cutoff.v1 import job_pb2

Change = Callable[[job_pb2.Job], job_pb2.Job]
"""From a job's record to its next one; pure, for it may be called again."""


class StoreFailed(Unavailable):
    """The database took nothing in (its disk is full, or it cannot be reached); what is in it stays as it is."""


class _Base(DeclarativeBase):
    pass


class _JobRow(_Base):
    __tablename__ = "jobs"
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(unique=True)
    request_id: Mapped[str] = mapped_column(unique=True)
    spec_sha256: Mapped[str]
    state: Mapped[int] = mapped_column(index=True)
    installs: Mapped[str | None] = mapped_column(index=True)
    """The name its model is to have in LM Studio; none for a job that installs nothing."""
    record: Mapped[bytes] = mapped_column(LargeBinary)


class _EventRow(_Base):
    __tablename__ = "events"
    job: Mapped[str] = mapped_column(primary_key=True)
    sequence: Mapped[int] = mapped_column(primary_key=True)
    record: Mapped[bytes] = mapped_column(LargeBinary)


class Store:
    """The jobs.

    Args:
        url: An SQLAlchemy URL, such as sqlite:////var/lib/cutoff/jobs.db.

    Raises:
        Refused: A newer cutoff made the database.
    """

    def __init__(self, url: str) -> None:
        self._engine = create_engine(url)
        if self._engine.dialect.name == "sqlite":
            event.listen(self._engine, "connect", _configure_sqlite)
        bring_up_to_date(self._engine)

    @property
    def engine(self) -> Engine:
        """The engine, for tests that look at the tables."""
        return self._engine

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        """A transaction that reads and then writes, and has what it reads to itself."""
        try:
            with Session(self._engine) as session, session.begin():
                if self._engine.dialect.name == "sqlite":
                    session.connection().exec_driver_sql("BEGIN IMMEDIATE")
                yield session
        except OperationalError as error:
            raise StoreFailed(f"the job store took nothing in: {error.orig}", "is its disk full?") from error

    def submit(self, spec: job_pb2.JobSpec, request_id: str) -> tuple[job_pb2.Job, bool]:
        """Stores a new job, or finds the one this request stored before.

        Returns:
            The job, and whether it is new.

        Raises:
            AlreadyExists: The request_id belongs to a job with another spec.
            StoreFailed: Nothing was stored.
        """
        digest = hashlib.sha256(json_format.MessageToJson(spec, sort_keys=True).encode()).hexdigest()
        with self._writing() as session:
            row = session.scalar(select(_JobRow).where(_JobRow.request_id == request_id))
            if row is not None:
                if row.spec_sha256 != digest:
                    remedy = "use a new request_id for a new job"
                    raise AlreadyExists(
                        f"request_id {request_id} belongs to jobs/{row.id}, which has another spec", remedy
                    )
                return job_pb2.Job.FromString(row.record), False
            job = new_job(spec)
            while _taken(session, job):  # six characters: among 10,000 jobs of one name two are likely the same
                job = new_job(spec)
            row = _JobRow(id=job_id(job), request_id=request_id, spec_sha256=digest, installs=_installs(spec.install))
            session.add(row)
            _record(session, row, job)
            return job, True

    def get(self, name: str) -> job_pb2.Job:
        """The job of this name ("jobs/{job}").

        Raises:
            NotFound: There is none.
        """
        with Session(self._engine) as session:
            return job_pb2.Job.FromString(_find(session, name).record)

    def page(self, page_size: int, page_token: str = "") -> tuple[list[job_pb2.Job], str]:
        """One page of jobs, the newest first, and the token of the next page ("" after the last)."""
        query = select(_JobRow).order_by(_JobRow.number.desc()).limit(page_size + 1)
        if page_token:
            query = query.where(_JobRow.number < int(page_token))
        with Session(self._engine) as session:
            rows = session.scalars(query).all()
        jobs = [job_pb2.Job.FromString(row.record) for row in rows[:page_size]]
        return jobs, str(rows[page_size - 1].number) if len(rows) > page_size else ""

    def unfinished(self) -> list[job_pb2.Job]:
        """The jobs that have not ended, the oldest first."""
        return self._under_way(select(_JobRow.record))

    def will_install(self, install: job_pb2.InstallSpec) -> list[job_pb2.Job]:
        """The jobs that have not ended and will install under a name, the oldest first."""
        return self._under_way(select(_JobRow.record).where(_JobRow.installs == _installs(install)))

    def _under_way(self, query: Select[bytes]) -> list[job_pb2.Job]:
        states = set(LEGAL) - TERMINAL  # "not in" would look at every job that has ever ended
        with Session(self._engine) as session:
            found = session.scalars(query.where(_JobRow.state.in_(states)).order_by(_JobRow.number))
            return [job_pb2.Job.FromString(record) for record in found]

    def ended(self) -> Iterator[job_pb2.Job]:
        """The jobs that have ended, the oldest first; one at a time, for there may be many."""
        query = select(_JobRow.record).where(_JobRow.state.in_(TERMINAL)).order_by(_JobRow.number)
        with Session(self._engine) as session:
            for record in session.scalars(query).yield_per(100):
                yield job_pb2.Job.FromString(record)

    def count_by_state(self) -> dict[int, int]:
        """How many jobs are in each state."""
        with Session(self._engine) as session:
            counted = session.execute(select(_JobRow.state, func.count()).group_by(_JobRow.state))
            return {row[0]: row[1] for row in counted}

    def change(self, name: str, change: Change, run: job_pb2.RunEvent | None = None) -> job_pb2.Job:
        """Changes a job and tells of it, in one transaction.

        Args:
            name: The job's.
            change: Makes the next record of the present one; what it raises leaves everything as it was.
            run: The run event behind the change. Without one, and where the job's result or number of attempts
                changed with it, the changed job itself is told of.

        Raises:
            NotFound: There is no such job.
            StoreFailed: Nothing was changed.
        """
        with self._writing() as session:
            row = _find(session, name, lock=True)
            before = job_pb2.Job.FromString(row.record)
            job = change(job_pb2.Job.FromString(row.record))
            if run is not None:
                _record(session, row, job, run)
            if run is None or job.result != before.result or len(job.attempts) != len(before.attempts):
                _record(session, row, job)
            return job

    def events(self, name: str, after: int, limit: int = 500) -> list[job_pb2.JobEvent]:
        """The kept events of a job after a sequence number, at most `limit` of them."""
        query = (
            select(_EventRow.record)
            .where(_EventRow.job == name.removeprefix("jobs/"), _EventRow.sequence > after)
            .order_by(_EventRow.sequence)
            .limit(limit)
        )
        with Session(self._engine) as session:
            return [job_pb2.JobEvent.FromString(record) for record in session.scalars(query)]


def _installs(install: job_pb2.InstallSpec) -> str | None:
    return f"{install.publisher}/{install.model_name}" if install.enabled else None


def _taken(session: Session, job: job_pb2.Job) -> bool:
    return session.scalar(select(_JobRow.number).where(_JobRow.id == job_id(job))) is not None


def _find(session: Session, name: str, lock: bool = False) -> _JobRow:
    query = select(_JobRow).where(_JobRow.id == name.removeprefix("jobs/"))
    row = session.scalar(query.with_for_update() if lock else query)
    if row is None:
        raise NotFound(f"there is no job {name!r}", "`cutoff list` shows the jobs")
    return row


def _record(session: Session, row: _JobRow, job: job_pb2.Job, run: job_pb2.RunEvent | None = None) -> None:
    job.last_sequence += 1
    happened = job_pb2.JobEvent(run=run) if run else job_pb2.JobEvent(job=job)
    happened.sequence = job.last_sequence
    happened.time.GetCurrentTime()
    row.state = job.state
    row.record = job.SerializeToString()
    session.add(_EventRow(job=row.id, sequence=job.last_sequence, record=happened.SerializeToString()))


def _configure_sqlite(connection: Any, _record: object) -> None:
    """WAL, so that readers never wait; FULL, so that an acknowledged job survives a power cut.

    Transactions begin where `Store` says so: the driver's own would let two of them read before either writes.
    """
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
