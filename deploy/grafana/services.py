"""The dashboard Services: are they up, do they answer, what do they use."""

from __future__ import annotations

from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard, ValueMap, ValueMappingResult

from deploy.grafana.overview import SERVICES
from deploy.grafana.panels import NO_LIMIT, Panel, dashboard, lines, more_is_better, more_is_worse, names, numbers

OURS = f'job=~"{SERVICES}"'
STREAMS = (
    "WatchJob",
    "GetReport",
    "Prepare",
    "Relearn",
    "Train",
    "Merge",
    "Convert",
    "WriteCard",
    "Install",
    "Evaluate",
    "WriteReport",
)
"""Calls that last as long as the work they watch: their duration is no latency."""
CALLS = f'method!~".*/({"|".join(STREAMS)})"'


def services() -> Dashboard:
    """The dashboard about the five processes."""
    rows = {"Health": _health(), "gRPC": _grpc(), "Work": _work(), "Resources": _resources()}
    return dashboard("cutoff-services", "cutoff: services", "Whether the services are up and answer.", rows)


def _health() -> list[Panel]:
    up = numbers(
        "Up",
        "Whether the metrics of each service could be read at the last try.",
        units.NoUnit,
        {"{{job}}": f"min by (job) (up{{{OURS}}})"},
        [(None, "red"), (1, "green")],
        width=12,
    )
    words = {"0": ValueMappingResult(text="down"), "1": ValueMappingResult(text="up")}
    return [
        up.mappings([ValueMap(options=words)]),
        names(
            "Versions",
            "The version of cutoff that each service runs; they should be the same.",
            {"{{service}} {{version}}": "max by (service, version) (cutoff_build_info)"},
            NO_LIMIT,
            width=12,
        ),
        lines(
            "Time since the start",
            "A line that falls to 0 is a restart.",
            units.Seconds,
            {"{{job}}": f"time() - min by (job) (process_start_time_seconds{{{OURS}}})"},
        ),
        lines(
            "Time to read the metrics",
            "A service that takes long is overloaded; at 4 s it counts as down.",
            units.Seconds,
            {"{{job}}": f"max by (job) (scrape_duration_seconds{{{OURS}}})"},
            more_is_worse(yellow=1, red=4),
        ),
    ]


def _grpc() -> list[Panel]:
    per_second = "rate(cutoff_grpc_requests_total[$__rate_interval])"
    failed = 'rate(cutoff_grpc_requests_total{code!="OK"}[$__rate_interval])'
    # Calls are rare: over a few seconds there would mostly be none.
    buckets = f"rate(cutoff_grpc_request_duration_seconds_bucket{{{CALLS}}}[5m])"
    all_calls = "sum by (job) (rate(cutoff_grpc_requests_total[5m]))"
    failed_calls = 'sum by (job) (rate(cutoff_grpc_requests_total{code!="OK"}[5m]))'
    return [
        lines(
            "Calls ended",
            "By service and method. A stream counts when it ends.",
            units.RequestsPerSecond,
            {"{{job}} {{method}}": f"sum by (job, method) ({per_second})"},
        ),
        lines(
            "Calls that failed, by code",
            "INVALID_ARGUMENT, NOT_FOUND and FAILED_PRECONDITION are answers to the caller; CANCELLED is a caller that "
            "left; UNKNOWN and INTERNAL are bugs, with a traceback in the service's log.",
            units.RequestsPerSecond,
            {"{{job}} {{code}}": f"sum by (job, code) ({failed})"},
        ),
        lines(
            "Share of calls that failed",
            "By service, all codes but OK, in the last 5 minutes.",
            units.PercentUnit,
            {"{{job}}": f"({failed_calls} or 0 * {all_calls}) / {all_calls}"},
            more_is_worse(yellow=0.05, red=0.25),
            width=8,
            highest=1,
        ),
        lines(
            "Latency (median)",
            "Of calls in the last 5 minutes that answer once; streams are left out, they last as long as their work. "
            "CancelRun returns when the run has ended.",
            units.Seconds,
            {"{{job}} {{method}}": f"histogram_quantile(0.5, sum by (le, job, method) ({buckets}))"},
            more_is_worse(yellow=1, red=5),
            width=8,
        ),
        lines(
            "Latency (95th percentile)",
            "Of calls in the last 5 minutes that answer once; streams are left out. 10 s means 10 s or more.",
            units.Seconds,
            {"{{job}} {{method}}": f"histogram_quantile(0.95, sum by (le, job, method) ({buckets}))"},
            more_is_worse(yellow=1, red=5),
            width=8,
        ),
    ]


def _work() -> list[Panel]:
    return [
        lines(
            "Runs in progress",
            "By service and stage.",
            units.NoUnit,
            {"{{job}} {{stage}}": "sum by (job, stage) (cutoff_runs_active)"},
        ),
        lines(
            "Silence of runs",
            "Time since a run's newest event. A run that was lost shows here before its job counts as stuck.",
            units.Seconds,
            {
                "{{cutoff_job}} {{stage}}": (
                    "time() - max by (cutoff_job, stage) (cutoff_run_last_event_timestamp_seconds)"
                )
            },
            more_is_worse(yellow=900, red=1800),
        ),
    ]


def _resources() -> list[Panel]:
    return [
        lines(
            "Memory of the services",
            "Resident memory of the server processes; runs are processes of their own.",
            units.BytesIEC,
            {"{{job}}": f"sum by (job) (process_resident_memory_bytes{{{OURS}}})"},
            more_is_worse(yellow=1 << 30, red=2 << 30),
            width=8,
        ),
        lines(
            "Memory of the runs",
            "Resident memory of the processes that do the work.",
            units.BytesIEC,
            {"{{cutoff_job}} {{stage}}": "sum by (cutoff_job, stage) (cutoff_run_memory_bytes)"},
            width=8,
        ),
        lines(
            "CPU of the services",
            "Cores the server processes keep busy; runs are processes of their own. Servers translate: near 1 is much.",
            "suffix: cores",
            {"{{job}}": f"sum by (job) (rate(process_cpu_seconds_total{{{OURS}}}[$__rate_interval]))"},
            more_is_worse(yellow=0.5, red=0.9),
            width=8,
        ),
        lines(
            "Open files",
            "File descriptors of the server processes. A line that only rises is a leak.",
            units.NoUnit,
            {"{{job}}": f"sum by (job) (process_open_fds{{{OURS}}})"},
            more_is_worse(yellow=500, red=1000),
            width=8,
        ),
        lines(
            "Disk: share that is free",
            "By root. Below 10 % the alert CutoffDiskLow fires; datasets is only read.",
            units.PercentUnit,
            {"{{root}}": "min by (root) (cutoff_disk_free_bytes / cutoff_disk_size_bytes)"},
            more_is_better(yellow=0.1, green=0.2),
            width=8,
            highest=1,
        ),
        lines(
            "Disk: free",
            "By root. A job needs about five times its 16-bit model.",
            units.BytesSI,
            {"{{root}}": "min by (root) (cutoff_disk_free_bytes)"},
            more_is_better(yellow=10e9, green=50e9),
            width=8,
        ),
    ]
