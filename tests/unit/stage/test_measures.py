"""The series of a run: set by its events, gone after it."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

from cutoff.run_key import stage_kind
from cutoff.stage import measures
from cutoff.v1 import types_pb2

LABELS = {"cutoff_job": "gauge-test", "stage": "train"}


@pytest.fixture
def key():
    made = types_pb2.RunKey(job="gauge-test", stage="train", attempt=1)
    yield made
    measures.forget_run(made)


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, {**LABELS, **labels})


def metric(name: str, number: float, **labels: str) -> types_pb2.Event:
    return types_pb2.Event(metric=types_pb2.Metric(name=name, value=number, labels=labels))


def test_a_runs_series_live_as_long_as_the_run(key):
    progress = types_pb2.Progress(step=1, total=4, eta_seconds=30)
    measures.run_started(key)
    measures.devices_leased(key, ["cuda:0"])
    measures.observe_run(key, types_pb2.Event(progress=progress))
    measures.observe_run(key, metric("cutoff_train_loss", 2.5))
    measures.observe_run(key, metric("cutoff_device_memory_used_bytes", 7, device="cuda:0"))
    assert value("cutoff_run_progress_ratio") == 0.25
    assert value("cutoff_run_eta_seconds") == 30
    measures.observe_run(key, types_pb2.Event(progress=types_pb2.Progress(step=1, total=4)))
    assert value("cutoff_run_eta_seconds") is None, "not what an earlier phase had left"
    assert value("cutoff_train_loss") == 2.5
    assert value("cutoff_device_leased", device="cuda:0") == 1
    assert value("cutoff_device_memory_used_bytes", device="cuda:0") == 7
    measures.run_ended(key, "succeeded", 3.0)
    assert value("cutoff_device_leased", device="cuda:0") is None, "a device is free at once"
    assert value("cutoff_train_loss") == 2.5, "the last loss can still be read"
    measures.forget_run(key)
    assert value("cutoff_run_progress_ratio") is None
    assert value("cutoff_train_loss") is None


def test_a_metric_nobody_declared_is_not_exported(key):
    measures.observe_run(key, metric("made_up", 1))
    assert value("made_up") is None


def test_the_stage_of_a_counter_is_bounded():
    assert [stage_kind(stage) for stage in ("train", "evaluate-q4_k_m")] == ["train", "evaluate"]
