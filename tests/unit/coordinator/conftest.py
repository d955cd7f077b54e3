"""A store on disk, and a job specification."""

from pathlib import Path

import pytest

from cutoff.coordinator.store import Store
from cutoff.spec import parse_job, spec_to_proto
from cutoff.v1 import job_pb2


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(f"sqlite:///{tmp_path / 'jobs.db'}")
    yield store
    store.close()


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
