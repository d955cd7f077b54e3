"""A store on disk, and a job specification."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url

from cutoff.coordinator.store import Store
from cutoff.spec import parse_job, spec_to_proto
from cutoff.v1 import job_pb2

SERVER = os.environ.get("CUTOFF_TEST_DATABASE_URL")
"""A PostgreSQL server (postgresql://user@host/database) that the tests are to use in place of SQLite."""

of_sqlite = pytest.mark.skipif(bool(SERVER), reason="SQLite's own ways")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """SQLite, or an empty database of the server."""
    if not SERVER:
        store = Store(f"sqlite:///{tmp_path / 'jobs.db'}")
        yield store
        store.close()
        return
    name = f"test_{secrets.token_hex(4)}"
    admin = create_engine(SERVER, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    store = Store(make_url(SERVER).set(database=name).render_as_string(hide_password=False))
    try:
        yield store
    finally:
        store.close()
        with admin.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
        admin.dispose()


@pytest.fixture
def spec() -> job_pb2.JobSpec:
    job = {
        "name": "demo",
        "base_model": "owner/model",
        "dataset": {"dev": "dev.jsonl"},
        "convert": {"quant_types": ["q4_k_m", "q8_0"]},
        "resources": {"gpus": 0},
    }
    return spec_to_proto(parse_job(job))
