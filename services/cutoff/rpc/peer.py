"""A server somebody calls: every call carries the token and a deadline, and fails as a CutoffError."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import grpc

from cutoff.rpc.channel import open_channel
from cutoff.rpc.errors import error_of_rpc
from cutoff.rpc.security import ClientSecurity

DEADLINE_SECONDS = 30.0
LONGEST_STREAM_SECONDS = 30 * 86400.0
"""No run takes longer; a server that is gone is noticed by keepalive, in under a minute."""


class _Message(Protocol):
    def SerializeToString(self) -> bytes: ...

    @classmethod
    def FromString(cls, data: bytes, /) -> Self: ...


M = TypeVar("M", bound=_Message)


class Peer:
    """One server; use as a context manager.

    Args:
        address: host:port, or unix:/path.
        security: Defaults to what the environment says.
        server_name: See `open_channel`.
    """

    def __init__(self, address: str, security: ClientSecurity | None = None, server_name: str = "") -> None:
        self.address = address
        self._security = security or ClientSecurity.from_environment()
        self._channel = open_channel(address, self._security, server_name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the channel; streams on it end."""
        self._channel.close()

    def unary(self, method: str, request: _Message, response: type[M], timeout: float = DEADLINE_SECONDS) -> M:
        """Makes one call.

        Args:
            method: As in "JobService/GetJob".
            request: The proto.
            response: The class of the answer.
            timeout: Seconds.

        Raises:
            CutoffError: What the server said, or Unavailable.
        """
        call = self._channel.unary_unary(f"/cutoff.v1.{method}", type(request).SerializeToString, response.FromString)
        try:
            answer: M = call(request, timeout=timeout, metadata=self._security.metadata())
        except grpc.RpcError as error:
            raise self._translated(error) from error
        return answer

    def stream(
        self, method: str, request: _Message, response: type[M], timeout: float = LONGEST_STREAM_SECONDS
    ) -> Iterator[M]:
        """Makes a streaming call.

        Args:
            method: As in "JobService/WatchJob".
            request: The proto.
            response: The class of the answers.
            timeout: Seconds until the last answer.

        Raises:
            CutoffError: What the server said, or Unavailable.
        """
        call = self._channel.unary_stream(f"/cutoff.v1.{method}", type(request).SerializeToString, response.FromString)
        try:
            yield from call(request, timeout=timeout, metadata=self._security.metadata())
        except grpc.RpcError as error:
            raise self._translated(error) from error

    def _translated(self, error: Any) -> Exception:
        return error_of_rpc(error, self.address)
