"""gRPC the same way everywhere: server start and graceful stop, TLS and token, health, errors, channels."""

from cutoff.rpc.channel import open_channel
from cutoff.rpc.door import Door
from cutoff.rpc.errors import error_of_failure, error_of_rpc, failure_of
from cutoff.rpc.peer import Peer
from cutoff.rpc.security import ClientSecurity, ServerSecurity
from cutoff.rpc.server import serve_until_stopped

__all__ = [
    "ClientSecurity",
    "Door",
    "Peer",
    "ServerSecurity",
    "error_of_failure",
    "error_of_rpc",
    "failure_of",
    "open_channel",
    "serve_until_stopped",
]
