"""What a stage service exports of its runs. A run's own series go away a while after it has ended.

What a run reports by `Reporter.metric` reaches Prometheus only under a name declared in `REPORTED`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import Counter, Gauge, Histogram

from cutoff.run_key import stage_kind
from cutoff.telemetry.metrics import JOB_LABEL, LONG_SECONDS
from cutoff.v1 import types_pb2

RUNS = Counter("cutoff_runs_total", "Runs that ended in this stage service, by outcome", ["stage", "outcome"])
RUN_SECONDS = Histogram("cutoff_run_duration_seconds", "How long runs took", ["stage"], buckets=LONG_SECONDS)
RUNS_ACTIVE = Gauge("cutoff_runs_active", "Runs in progress in this stage service", ["stage"])

_RUN = (JOB_LABEL, "stage")


def _of_run(name: str, text: str, *further: str) -> Gauge:
    return Gauge(name, text, [*_RUN, *further])


PROGRESS = _of_run("cutoff_run_progress_ratio", "Share of a run's current phase that is done")
ETA = _of_run("cutoff_run_eta_seconds", "What the current phase still takes at its present rate")
LAST_EVENT = _of_run("cutoff_run_last_event_timestamp_seconds", "When a run last said anything, in Unix time")
MEMORY = _of_run("cutoff_run_memory_bytes", "Resident memory of a run's processes")
LEASED = _of_run("cutoff_device_leased", "1 while a run holds the device", "device")

REPORTED = {
    "cutoff_train_step": _of_run("cutoff_train_step", "Optimizer steps done"),
    "cutoff_train_remaining_seconds": _of_run("cutoff_train_remaining_seconds", "How long training will go on"),
    "cutoff_train_loss": _of_run("cutoff_train_loss", "Training loss of the newest step; of sft in nats per token"),
    "cutoff_train_eval_loss": _of_run("cutoff_train_eval_loss", "Validation loss of the newest evaluation"),
    "cutoff_train_learning_rate": _of_run("cutoff_train_learning_rate", "Learning rate of the newest step"),
    "cutoff_train_tokens_per_second": _of_run(
        "cutoff_train_tokens_per_second", "Tokens trained on per second, padding not counted"
    ),
    "cutoff_train_mfu_ratio": _of_run(
        "cutoff_train_mfu_ratio", "Model FLOPs utilisation; only on devices whose peak is known (trainer/flops.py)"
    ),
    "cutoff_train_checkpoint_timestamp_seconds": _of_run(
        "cutoff_train_checkpoint_timestamp_seconds", "When the newest checkpoint was published, in Unix time"
    ),
    "cutoff_merge_bytes_per_second": _of_run("cutoff_merge_bytes_per_second", "Merged model written per second"),
    "cutoff_convert_bytes_per_second": _of_run(
        "cutoff_convert_bytes_per_second", "16-bit weights read per second, by the type they became", "quant_type"
    ),
    "cutoff_device_memory_used_bytes": _of_run(
        "cutoff_device_memory_used_bytes", "Memory of a device that a run's PyTorch has reserved", "device"
    ),
}
"""What a run may report, by name."""


def run_started(key: types_pb2.RunKey) -> None:
    """Counts a run as active."""
    RUNS_ACTIVE.labels(stage_kind(key.stage)).inc()
    LAST_EVENT.labels(*_labels(key)).set_to_current_time()


def devices_leased(key: types_pb2.RunKey, devices: Iterable[str]) -> None:
    """Takes in that a run holds the locks of its devices."""
    for device in devices:
        LEASED.labels(*_labels(key), device).set(1)


def run_ended(key: types_pb2.RunKey, outcome: str, seconds: float) -> None:
    """Counts a run as ended, and its devices as free."""
    kind = stage_kind(key.stage)
    RUNS.labels(kind, outcome).inc()
    RUNS_ACTIVE.labels(kind).dec()
    RUN_SECONDS.labels(kind).observe(seconds)
    for gauge in (LEASED, ETA, MEMORY, LAST_EVENT):
        _remove(gauge, key)


def observe_run(key: types_pb2.RunKey, event: types_pb2.Event) -> None:
    """Moves a run's gauges to what one of its events says."""
    labels = _labels(key)
    LAST_EVENT.labels(*labels).set(event.time.ToMicroseconds() / 1e6)
    if event.WhichOneof("kind") == "progress" and event.progress.total:
        PROGRESS.labels(*labels).set(event.progress.step / event.progress.total)
        if event.progress.HasField("eta_seconds"):
            ETA.labels(*labels).set(event.progress.eta_seconds)
        else:
            _remove(ETA, key)  # the phase before had one
    elif event.WhichOneof("kind") == "metric" and event.metric.name in REPORTED:
        _set(REPORTED[event.metric.name], labels, event.metric.labels, event.metric.value)


def forget_run(key: types_pb2.RunKey) -> None:
    """Removes the series of a run that has ended."""
    for gauge in (PROGRESS, ETA, LAST_EVENT, MEMORY, LEASED, *REPORTED.values()):
        _remove(gauge, key)


def _set(gauge: Gauge, labels: tuple[str, str], further: Mapping[str, str], value: float) -> None:
    names = gauge._labelnames[len(_RUN) :]
    gauge.labels(*labels, *(further.get(name, "") for name in names)).set(value)


def _labels(key: types_pb2.RunKey) -> tuple[str, str]:
    return key.job, key.stage


def _remove(gauge: Gauge, key: types_pb2.RunKey) -> None:
    gauge.remove_by_labels(dict(zip(_RUN, _labels(key), strict=True)))
