"""A client that is told nothing asks again, and so do a hundred at once: it is one job."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults.quick.system import System

pytestmark = pytest.mark.fault

CLIENTS = 100


def test_a_hundred_submits_with_one_request_id_are_one_job(figures):
    with System() as system:
        system.start()
        spec, request_id = system.spec(), uuid.uuid4().hex
        together = threading.Barrier(CLIENTS)

        def submit(_: int) -> str:
            with system.client() as client:
                together.wait(60)
                return client.submit(spec, request_id).name

        with ThreadPoolExecutor(CLIENTS) as pool:
            names = set(pool.map(submit, range(CLIENTS)))
        system.wait_terminal(next(iter(names)))
        with system.client() as client:
            jobs = len(list(client.jobs()))
        begun = len(system.ledger.lines("begun", stage="prepare"))
        figures.hold(
            "100 concurrent submits with one request_id", CLIENTS, limit=1,
            jobs=jobs, names_told=len(names), runs_begun=begun,
        )  # fmt: skip
