"""Structured logs and Prometheus metrics, the same for every service."""

from cutoff.telemetry.libraries import before_import, quiet_libraries
from cutoff.telemetry.logs import bind_run, configure_logs, logger
from cutoff.telemetry.metrics import serve_metrics

__all__ = ["before_import", "bind_run", "configure_logs", "logger", "quiet_libraries", "serve_metrics"]
