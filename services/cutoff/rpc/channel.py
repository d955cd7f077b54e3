"""Channels to cutoff's servers: keepalive on both sides, bounded messages, a token in each call."""

from __future__ import annotations

import grpc

from cutoff.errors import Refused
from cutoff.rpc.security import ClientSecurity, is_local

MAX_MESSAGE_BYTES = 4 << 20
MAX_CALLS_OF_A_CONNECTION = 2048

CHANNEL_OPTIONS = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_metadata_size", 32 << 10),
)
SERVER_OPTIONS = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # The C macro says MIN_RECV_PING_INTERVAL, its value does not; an unknown name is ignored without a word.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),
    ("grpc.max_concurrent_streams", MAX_CALLS_OF_A_CONNECTION),
    ("grpc.max_metadata_size", 8 << 10),
    ("grpc.server_handshake_timeout_ms", 20_000),
)


def open_channel(address: str, security: ClientSecurity, server_name: str = "") -> grpc.Channel:
    """A synchronous channel.

    Args:
        address: host:port, or unix:/path, which no network is behind and which therefore has no TLS.
        security: TLS when it has a CA, on both sides when it has a certificate.
        server_name: The name that the server's certificate must carry, where it is not the address's: the services
            of each host have their service's name, whatever the host is called.

    Raises:
        Refused: The server is on another machine, and there is no CA: the token would travel in the clear.
    """
    if security.ca is not None and not address.startswith("unix:"):
        credentials = grpc.ssl_channel_credentials(security.ca, *(security.certificate or ()))
        named = (("grpc.ssl_target_name_override", server_name),) if server_name else ()
        return grpc.secure_channel(address, credentials, (*CHANNEL_OPTIONS, *named))
    if not is_local(address):
        raise Refused(f"{address} is on another machine, and no CA is given to trust", "set CUTOFF_CA_FILE")
    return grpc.insecure_channel(address, CHANNEL_OPTIONS)
