"""What every service exports to Prometheus: its build, its gRPC calls, the room on its disks.

One prefix, base units, bounded labels. Of a stage's runs tells `stage/measures.py`, of jobs and the queue
`coordinator/measures.py`. A job's id is the label `cutoff_job`, because `job` is Prometheus' own.
"""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from prometheus_client import (
    GC_COLLECTOR,
    REGISTRY,
    Counter,
    Histogram,
    Info,
    disable_created_metrics,
    start_http_server,
)
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY.unregister(GC_COLLECTOR)  # Python's, without units: of no use to whoever runs cutoff

JOB_LABEL = "cutoff_job"

LONG_SECONDS = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 48 * 3600)
"""Buckets for work that may take days."""

GRPC_REQUESTS = Counter(
    "cutoff_grpc_requests_total", "gRPC calls that ended, by method and status code", ["method", "code"]
)
GRPC_SECONDS = Histogram(
    "cutoff_grpc_request_duration_seconds", "How long gRPC calls took; streams until they ended", ["method"]
)
_BUILD = Info("cutoff_build", "The version that runs")


class DiskCollector(Collector):
    """Looks at the disks when Prometheus asks.

    Args:
        roots: From the name of a root ("artifacts") to its folder.
    """

    def __init__(self, roots: Mapping[str, Path]) -> None:
        self._roots = roots

    def describe(self) -> tuple[GaugeMetricFamily, GaugeMetricFamily]:
        """The metrics, without looking."""
        return (
            GaugeMetricFamily("cutoff_disk_free_bytes", "Room on the disk of a root", labels=["root"]),
            GaugeMetricFamily("cutoff_disk_size_bytes", "Size of the disk of a root", labels=["root"]),
        )

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now; a root that is not there has none."""
        free, size = self.describe()
        for name, folder in self._roots.items():
            if folder.is_dir():
                usage = shutil.disk_usage(folder)
                free.add_metric([name], usage.free)
                size.add_metric([name], usage.total)
        yield free
        yield size


def serve_metrics(service: str, port: int, address: str = "127.0.0.1", disks: Mapping[str, Path] | None = None) -> int:
    """Starts this process's /metrics on a thread of its own.

    Args:
        service: Goes into cutoff_build_info.
        port: 0 takes a free one.
        address: What to listen on.
        disks: The roots this service writes to.

    Returns:
        The port.
    """
    _BUILD.info({"service": service, "version": importlib.metadata.version("cutoff")})
    if disks:
        REGISTRY.register(DiskCollector(disks))
    server, _ = start_http_server(port, addr=address)
    return int(server.server_port)
