"""Durable jobs: what was acknowledged survives a crash. SQLite in WAL mode, through SQLAlchemy.

Two tables: `jobs` holds each job's record (the proto) with the columns that are searched by, `events` what
happened to it. A change of a job and the event that tells of it are one transaction. The tables have versions
(`schema.py`); PostgreSQL is a URL away.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import LargeBinary, Select, create_engine, event, func, insert, select
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from cutoff.coordinator.job import LEGAL, TERMINAL, job_id, new_job
from cutoff.coordinator.schema import bring_up_to_date
from cutoff.errors import AlreadyExists, NotFound, Unavailable
from cutoff.v1 import job_pb2

Change = Callable[[job_pb2.Job], job_pb2.Job]
"""From a job's record to its next one; pure, for it may be called again."""

_AWAY = (OperationalError, InterfaceError, InternalError)
_REMEDY = "is its disk full, or its server away?"
_PATIENCE = {"connect_timeout": 3, "tcp_user_timeout": 5000}
"""Of a connection to PostgreSQL, in seconds and in milliseconds."""
_LOCK = 0x637574
"""The advisory lock of those who write to the store on PostgreSQL."""

Submitted = tuple[job_pb2.Job, bool]
"""A job, and whether it is new: the same request may have stored it before."""


class StoreFailed(Unavailable):
    """The database took nothing in (its disk is full, say), or cannot be reached; what is in it stays as it is."""


class _Base(DeclarativeBase):
    pass


class _JobRow(_Base):
    __tablename__ = "jobs"
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(unique=True)
    request_id: Mapped[str] = mapped_column(unique=True)
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
        remote = make_url(url).get_backend_name() == "postgresql"
        # A server may have been restarted since a connection was used; all calls wait while one connects.
        self._engine = create_engine(url, pool_pre_ping=True, connect_args=_PATIENCE if remote else {})
        if self._engine.dialect.name == "sqlite":
            event.listen(self._engine, "connect", _configure_sqlite)
        try:
            bring_up_to_date(self._engine)
        except _AWAY as error:
            raise StoreFailed(f"the job store cannot be opened: {error.orig}", _REMEDY) from error

    @property
    def engine(self) -> Engine:
        """The engine, for tests that look at the tables."""
        return self._engine

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        """A transaction that reads and then writes, and has the store to itself."""
        alone = {"sqlite": "BEGIN IMMEDIATE", "postgresql": f"SELECT pg_advisory_xact_lock({_LOCK})"}
        try:
            with Session(self._engine) as session, session.begin():
                session.connection().exec_driver_sql(alone[self._engine.dialect.name])
                yield session
        except _AWAY as error:
            raise StoreFailed(f"the job store took nothing in: {error.orig}", _REMEDY) from error

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        try:
            with Session(self._engine) as session:
                yield session
        except _AWAY as error:
            raise StoreFailed(f"the job store cannot be read: {error.orig}", _REMEDY) from error

    def submit(self, spec: job_pb2.JobSpec, request_id: str) -> Submitted:
        """Stores a new job, or finds the one this request stored before.

        Raises:
            AlreadyExists: The request_id belongs to a job with another spec.
            StoreFailed: Nothing was stored.
        """
        (outcome,) = self.submit_all([(spec, request_id)])
        if isinstance(outcome, AlreadyExists):
            raise outcome
        return outcome

    def submit_all(self, submissions: Sequence[tuple[job_pb2.JobSpec, str]]) -> list[Submitted | AlreadyExists]:
        """Stores jobs as `submit` does, all in one transaction.

        Args:
            submissions: Specs and request_ids, at most some hundreds.

        Returns:
            What came of each, in their order.

        Raises:
            StoreFailed: None of them was stored, or whether they were is not known (a server may be lost in the midst).
        """
        request_ids = {request_id for _, request_id in submissions}
        outcomes: list[Submitted | AlreadyExists] = []
        with self._writing() as session:
            rows = session.execute(
                select(_JobRow.request_id, _JobRow.record).where(_JobRow.request_id.in_(request_ids))
            )
            found = {request_id: job_pb2.Job.FromString(record) for request_id, record in rows}
            new: list[tuple[str, job_pb2.Job]] = []
            for spec, request_id in submissions:
                job = found.get(request_id)
                if job is None:
                    job = found[request_id] = new_job(spec)
                    new.append((request_id, job))
                    outcomes.append((job, True))
                elif job.spec == spec:
                    outcomes.append((job, False))
                else:
                    said = f"request_id {request_id} belongs to {job.name}, which has another spec"
                    outcomes.append(AlreadyExists(said, "use a new request_id for a new job"))
            if new:
                _rename_taken(session, [job for _, job in new])
                events = [{"job": job_id(job), **_event(job)} for _, job in new]
                jobs = [
                    {"id": job_id(job), "request_id": asked, "installs": _installs(job.spec.install), **_columns(job)}
                    for asked, job in new
                ]
                session.execute(insert(_JobRow), jobs)
                session.execute(insert(_EventRow), events)
        return outcomes

    def get(self, name: str) -> job_pb2.Job:
        """The job of this name ("jobs/{job}").

        Raises:
            NotFound: There is none.
        """
        with self._reading() as session:
            return job_pb2.Job.FromString(_find(session, name).record)

    def page(self, page_size: int, page_token: str = "") -> tuple[list[job_pb2.Job], str]:
        """One page of jobs, the newest first, and the token of the next page ("" after the last)."""
        query = select(_JobRow).order_by(_JobRow.number.desc()).limit(page_size + 1)
        if page_token:
            query = query.where(_JobRow.number < int(page_token))
        with self._reading() as session:
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
        with self._reading() as session:
            found = session.scalars(query.where(_JobRow.state.in_(states)).order_by(_JobRow.number))
            return [job_pb2.Job.FromString(record) for record in found]

    def ended(self) -> Iterator[job_pb2.Job]:
        """The jobs that have ended, the oldest first; one at a time, for there may be many."""
        query = select(_JobRow.record).where(_JobRow.state.in_(TERMINAL)).order_by(_JobRow.number)
        with self._reading() as session:
            for record in session.scalars(query).yield_per(100):
                yield job_pb2.Job.FromString(record)

    def count_by_state(self) -> dict[int, int]:
        """How many jobs are in each state."""
        with self._reading() as session:
            counted = session.execute(select(_JobRow.state, func.count()).group_by(_JobRow.state))
            return {row[0]: row[1] for row in counted}

    def change(self, name: str, change: Change, run: job_pb2.RunEvent | None = None) -> job_pb2.Job:
        """Changes a job and tells of it, in one transaction.

        Args:
            name: The job's.
            change: Makes the next record of the present one; what it raises leaves everything as it was.
            run: The run event behind the change. Without one, and where the job's result or number of attempts
                changed with it, the changed job itself is told of; where nothing changed, nothing is.

        Raises:
            NotFound: There is no such job.
            StoreFailed: Nothing was changed.
        """
        with self._writing() as session:
            row = _find(session, name)
            before = job_pb2.Job.FromString(row.record)
            job = change(job_pb2.Job.FromString(row.record))
            if run is None and job == before:
                return job
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
        with self._reading() as session:
            return [job_pb2.JobEvent.FromString(record) for record in session.scalars(query)]


def _installs(install: job_pb2.InstallSpec) -> str | None:
    return f"{install.publisher}/{install.model_name}" if install.enabled else None


def _rename_taken(session: Session, jobs: Sequence[job_pb2.Job]) -> None:
    """New names for new jobs whose ids others have: of six characters, among 10,000 two are likely the same."""
    while True:
        ids = Counter(map(job_id, jobs))
        taken = set(session.scalars(select(_JobRow.id).where(_JobRow.id.in_(ids))))
        clashing = [job for job in jobs if job_id(job) in taken or ids[job_id(job)] > 1]
        if not clashing:
            return
        for job in clashing:
            job.name = new_job(job.spec).name


def _find(session: Session, name: str) -> _JobRow:
    wanted = name.removeprefix("jobs/")
    row = session.scalar(select(_JobRow).where(_JobRow.id == wanted)) if "\0" not in wanted else None
    if row is None:
        raise NotFound(f"there is no job {name!r}", "`cutoff list` shows the jobs")
    return row


def _record(session: Session, row: _JobRow, job: job_pb2.Job, run: job_pb2.RunEvent | None = None) -> None:
    session.add(_EventRow(job=row.id, **_event(job, run)))
    for column, value in _columns(job).items():
        setattr(row, column, value)


def _event(job: job_pb2.Job, run: job_pb2.RunEvent | None = None) -> dict[str, Any]:
    """The columns of a job's next event: one of its runs', or the changed job itself."""
    job.last_sequence += 1
    happened = job_pb2.JobEvent(run=run) if run else job_pb2.JobEvent(job=job)
    happened.sequence = job.last_sequence
    happened.time.GetCurrentTime()
    return {"sequence": job.last_sequence, "record": happened.SerializeToString()}


def _columns(job: job_pb2.Job) -> dict[str, Any]:
    """The columns of a job's row that change with the job."""
    return {"state": job.state, "record": job.SerializeToString()}


def _configure_sqlite(connection: Any, _record: object) -> None:
    """WAL, so that readers never wait; FULL, so that an acknowledged job survives a power cut.

    Transactions begin where `Store` says so: the driver's own would let two of them read before either writes.
    """
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
