"""Copies of the job store: taken while the coordinator runs, put back while none does. SQLite only.

cutoff-coordinator backup FILE
cutoff-coordinator restore FILE [--replace]
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy.engine import make_url

from cutoff.artifacts import publishing
from cutoff.errors import AlreadyExists, CheckFailed, NotFound, Refused


def back_up(url: str, file: Path) -> int:
    """Writes a consistent copy of the store as one file, whoever writes to the store meanwhile.

    Args:
        url: The store's.
        file: The copy's name.

    Returns:
        How many jobs are in it.

    Raises:
        Refused: The store is no SQLite database.
        NotFound: There is no store yet.
        AlreadyExists: The file is there.
    """
    database = _path_of(url)
    if not database.is_file():
        raise NotFound(f"there is no job store {database}", "is CUTOFF_STATE the coordinator's?")
    if file.exists():
        raise AlreadyExists(f"{file} is there already", "choose another name")
    with publishing(file, replace=False) as partial:
        _copy(database, partial)
        return _jobs_in(partial)


def restore(url: str, file: Path, replace: bool = False) -> int:
    """Puts a copy in the place of the store. The caller holds the lock that a running coordinator would hold.

    Args:
        url: The store's.
        file: The copy.
        replace: Whether a store that is there gives way.

    Returns:
        How many jobs are in it.

    Raises:
        Refused: The store is no SQLite database, or in use.
        NotFound: There is no such file.
        CheckFailed: It is no copy of a job store, or damaged.
        AlreadyExists: A store is there, and not to be replaced.
    """
    database = _path_of(url)
    if not file.is_file():
        raise NotFound(f"there is no {file}", "name a file that `cutoff-coordinator backup` wrote")
    jobs = _jobs_in(file)
    if database.exists() and not replace:
        raise AlreadyExists(f"{database} is there already", "give --replace to lose what is in it, or move it away")
    with publishing(database) as partial:
        _copy(file, partial)
        if database.exists():
            _fold_in_log(database)
    return jobs


def _path_of(url: str) -> Path:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        raise Refused(f"the job store is no SQLite database: {parsed!r}", "use its own tools, such as pg_dump")
    return Path(parsed.database)


def _copy(source: Path, target: Path) -> None:
    """Copies what is committed in a database, its log included, into a file of its own."""
    with closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as read:  # noqa: SIM117
        with closing(sqlite3.connect(target)) as written:
            read.backup(written)
            written.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it


def _jobs_in(file: Path) -> int:
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as database:
            (whole,) = database.execute("PRAGMA integrity_check").fetchone()
            (jobs,) = database.execute("SELECT count(*) FROM jobs").fetchone()
    except sqlite3.DatabaseError as error:
        raise CheckFailed(f"{file} is no copy of a job store: {error}", "use another copy") from error
    if whole != "ok":
        raise CheckFailed(f"{file} is damaged: {whole}", "use another copy")
    return int(jobs)


def _fold_in_log(database: Path) -> None:
    """Takes the log of a database into it: it would be applied to the one that comes into its place."""
    try:
        with closing(sqlite3.connect(database, timeout=1)) as old:
            old.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.OperationalError as error:
        raise Refused(f"{database} is in use: {error}", "stop whoever has it open") from error
