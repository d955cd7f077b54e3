"""Brings the job store's tables to the version this code reads and writes."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect
from sqlalchemy.engine import Connection, Engine

from cutoff.errors import Refused

_FIRST = "0001"
"""The version of databases that were made before there were versions."""


def bring_up_to_date(engine: Engine) -> None:
    """Makes the tables of a new database, adopts one without a version, and applies what an older one lacks.

    All of it is one transaction where the database can (SQLite and PostgreSQL can).

    Raises:
        Refused: A newer cutoff made the database.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    script = ScriptDirectory.from_config(config)
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        config.attributes["connection"] = connection
        present = _version(connection)
        if present is not None and present not in {each.revision for each in script.walk_revisions()}:
            raise Refused(
                f"the job store has the version {present}, which this cutoff does not know",
                "run the version of cutoff that made it, or a newer one",
            )
        if present is None and inspect(connection).has_table("jobs"):
            command.stamp(config, _FIRST)
        if present != script.get_current_head():
            command.upgrade(config, "head")


def _version(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()
