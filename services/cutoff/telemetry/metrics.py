"""Every Prometheus metric of cutoff: one prefix, base units, bounded labels.

What a run reports by `Reporter.metric` reaches Prometheus only under a name declared in `RUN_GAUGES`; its
series carries the job's id and goes away when the run ends.
"""

from __future__ import annotations

import importlib.metadata

from prometheus_client import Counter, Gauge, Histogram, Info, start_http_server

from cutoff.v1 import types_pb2

_LONG = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 48 * 3600)
"""Buckets in seconds for work that may take days."""

GRPC_REQUESTS = Counter(
    "cutoff_grpc_requests_total", "gRPC calls that ended, by method and status code", ["method", "code"]
)
GRPC_SECONDS = Histogram(
    "cutoff_grpc_request_duration_seconds", "How long gRPC calls took; streams until they ended", ["method"]
)
RUNS = Counter("cutoff_runs_total", "Runs that ended in this stage service, by outcome", ["stage", "outcome"])
RUN_SECONDS = Histogram("cutoff_run_duration_seconds", "How long runs took", ["stage"], buckets=_LONG)
RUNS_ACTIVE = Gauge("cutoff_runs_active", "Runs in progress in this stage service", ["stage"])
JOBS = Gauge("cutoff_jobs", "Jobs in the store, by state", ["state"])
JOB_SECONDS = Histogram("cutoff_job_duration_seconds", "From submission to the end of a job", ["state"], buckets=_LONG)
RUN_PROGRESS = Gauge("cutoff_run_progress_ratio", "Share of a run's current phase that is done", ["job", "stage"])
_BUILD = Info("cutoff_build", "The version that runs")

RUN_GAUGES = {
    name: Gauge(name, text, ["job", "stage"])
    for name, text in {
        "cutoff_train_loss": "Training loss of the newest step",
        "cutoff_train_learning_rate": "Learning rate of the newest step",
        "cutoff_train_eval_loss": "Validation loss of the newest evaluation",
        "cutoff_train_tokens_per_second": "Tokens trained on per second, padding not counted",
    }.items()
}


def serve_metrics(service: str, port: int, address: str = "127.0.0.1") -> int:
    """Starts this process's /metrics on a thread of its own.

    Args:
        service: Goes into cutoff_build_info.
        port: 0 takes a free one.
        address: What to listen on.

    Returns:
        The port.
    """
    _BUILD.info({"service": service, "version": importlib.metadata.version("cutoff")})
    server, _ = start_http_server(port, addr=address)
    return int(server.server_port)


def observe_run(key: types_pb2.RunKey, event: types_pb2.Event) -> None:
    """Moves a run's gauges to what one of its events says."""
    if event.WhichOneof("kind") == "progress" and event.progress.total:
        RUN_PROGRESS.labels(key.job, key.stage).set(event.progress.step / event.progress.total)
    elif event.WhichOneof("kind") == "metric" and event.metric.name in RUN_GAUGES:
        RUN_GAUGES[event.metric.name].labels(key.job, key.stage).set(event.metric.value)


def forget_run(key: types_pb2.RunKey) -> None:
    """Removes the series of a run that has ended."""
    for gauge in (RUN_PROGRESS, *RUN_GAUGES.values()):
        gauge.remove_by_labels({"job": key.job, "stage": key.stage})
