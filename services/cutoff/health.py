"""Asks this container's service whether it serves: `cutoff-health` exits with 0 when it does.

`cutoff-health --alive` is content with any answer: a service that drains is alive, and must not be restarted for it.

For health checks of containers and pods: it listens where CUTOFF_LISTEN says and shows the service's own
certificate, which the kubelet's probe cannot. It runs every few seconds, so it imports nothing but gRPC.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import grpc

_SECONDS = 25.0
"""Patient: a training may keep all cores busy. Docker and Kubernetes wait 30 s for the command."""
_SERVING = b"\x08\x01"
"""grpc.health.v1.HealthCheckResponse with status SERVING."""


def main() -> None:
    """The console script cutoff-health."""
    port = os.environ.get("CUTOFF_LISTEN", "").rpartition(":")[2]
    if not port.isdigit():
        sys.exit("cutoff-health: CUTOFF_LISTEN does not say which port the service listens on")
    with _channel(f"localhost:{port}") as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check", None, None)
        try:
            answer = check(b"", timeout=_SECONDS, wait_for_ready=True)
        except grpc.RpcError as error:
            sys.exit(f"cutoff-health: {error.code().name}: {error.details()}")
    if answer != _SERVING and "--alive" not in sys.argv[1:]:
        sys.exit("cutoff-health: the service does not serve")


def _channel(address: str) -> grpc.Channel:
    files = [os.environ.get(f"CUTOFF_{name}_FILE") for name in ("CA", "KEY", "CERT")]
    if not all(files):
        return grpc.insecure_channel(address)
    credentials = grpc.ssl_channel_credentials(*(Path(str(file)).read_bytes() for file in files))
    return grpc.secure_channel(address, credentials, [("grpc.enable_http_proxy", 0)])


if __name__ == "__main__":
    main()
