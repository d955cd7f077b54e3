"""Structured logs and Prometheus metrics, the same for every service."""

from cutoff.telemetry.logs import bind_run, configure_logs, logger
from cutoff.telemetry.metrics import serve_metrics

__all__ = ["bind_run", "configure_logs", "logger", "serve_metrics"]
