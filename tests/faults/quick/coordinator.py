"""The coordinator, killed before or after the n-th transaction in which it writes about jobs."""

from __future__ import annotations

import threading
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.engine.default import DefaultDialect

from cutoff.coordinator import main as coordinator
from tests.faults.quick.deaths import Death

_WRITES = ("INSERT", "UPDATE", "DELETE")


def die_at_a_commit(death: Death) -> None:
    """Counts this process's transactions that change jobs or events, and dies around the one that is meant."""
    here = threading.local()  # a transaction's statements and its commit are one thread's
    done = 0

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        changes = statement.lstrip().upper().startswith(_WRITES) and ("jobs" in statement or "events" in statement)
        here.writes = getattr(here, "writes", False) or changes

    event.listen(Engine, "before_cursor_execute", note)
    commit = DefaultDialect.do_commit

    def do_commit(dialect: DefaultDialect, connection: Any) -> None:
        nonlocal done
        writes, here.writes = getattr(here, "writes", False), False
        done += writes
        if writes:
            death.come("before", str(done))
        commit(dialect, connection)
        if writes:
            death.come("after", str(done))

    DefaultDialect.do_commit = do_commit


if __name__ == "__main__":
    chosen = Death.of_environment()
    if chosen is not None:
        die_at_a_commit(chosen)
    coordinator.main()
