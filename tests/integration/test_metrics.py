"""Every service of a running system serves its metrics."""

from __future__ import annotations

import json
import urllib.request

import pytest

pytestmark = pytest.mark.integration

SERVICES = ["coordinator", "trainer", "merger", "gguf-converter", "evaluator"]


def metrics_of(roots, service: str) -> str:
    """The ports of a private system are free ones; each service logs its own."""
    lines = (roots.artifacts / "logs" / f"{service}.log").read_text().splitlines()
    ports = [json.loads(line)["port"] for line in lines if '"event": "metrics"' in line]
    with urllib.request.urlopen(f"http://127.0.0.1:{ports[-1]}/metrics", timeout=10) as answer:
        return answer.read().decode()


@pytest.mark.parametrize("service", SERVICES)
def test_each_service_says_who_it_is(system, roots, service):
    assert f'cutoff_build_info{{service="{service}"' in metrics_of(roots, service)


def test_a_job_is_counted(client, roots, small_world):
    changes = {"install": {"enabled": False}, "train": {"epochs": 1}, "evaluate": {"targets": ["merged"]}}
    job = client.submit(small_world.job(roots.datasets, **changes))
    for _ in client.watch(job.name):
        pass
    assert 'cutoff_runs_total{outcome="succeeded",stage="train"}' in metrics_of(roots, "trainer")
    assert 'cutoff_jobs{state="succeeded"}' in metrics_of(roots, "coordinator")
    name = job.name.removeprefix("jobs/")
    last_loss = f'cutoff_train_loss{{cutoff_job="{name}",stage="train"}}'
    assert last_loss in metrics_of(roots, "trainer"), "what a run said last can still be read"
    assert f'cutoff_run_memory_bytes{{cutoff_job="{name}"' not in metrics_of(roots, "trainer"), "it holds none any more"
    coordinator = metrics_of(roots, "coordinator")
    assert 'cutoff_stage_duration_seconds_count{outcome="succeeded",stage="train"}' in coordinator
    assert f'cutoff_evaluation_score_ratio{{cutoff_job="{name}"' in coordinator
    assert f'cutoff_job_last_event_timestamp_seconds{{cutoff_job="{name}"' not in coordinator
