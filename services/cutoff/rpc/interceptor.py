"""What happens around every call on a server: the token is checked, errors become statuses, calls are counted."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from cutoff.errors import CutoffError, Unauthenticated
from cutoff.rpc.errors import status_of
from cutoff.rpc.security import TOKEN_HEADER, ServerSecurity
from cutoff.telemetry import logger
from cutoff.telemetry.metrics import GRPC_REQUESTS, GRPC_SECONDS

if TYPE_CHECKING:
    _Interceptor = grpc.aio.ServerInterceptor[Any, Any]
else:
    _Interceptor = grpc.aio.ServerInterceptor

_LOG = logger(__name__)
_OPEN_METHODS = ("/grpc.health.v1.Health/",)
"""Health checks need no token: an orchestrator has none."""


_WHERE_IT_IS = (
    "set CUTOFF_TOKEN_FILE to the file with this server's token; of containers: coordinator:/run/cutoff/token"
)


class CallInterceptor(_Interceptor):
    """Wraps each method of a server."""

    def __init__(self, security: ServerSecurity) -> None:
        self._security = security

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """Returns the method's handler with the wrapping around it."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(_OPEN_METHODS):
            return handler
        headers = dict(handler_call_details.invocation_metadata)
        call = _Call(method, str(headers.get(TOKEN_HEADER, "")), self._security)
        serializers = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(call.stream(handler.unary_stream), **serializers)
        assert handler.unary_unary is not None, "no method of cutoff takes a stream"
        return grpc.unary_unary_rpc_method_handler(call.unary(handler.unary_unary), **serializers)


class _Call:
    """One call: refused without a token or certificate, timed, counted by its outcome."""

    def __init__(self, method: str, header: str, security: ServerSecurity) -> None:
        self._around = partial(_Around, method.rpartition(".")[2], header, security)

    def unary(self, behaviour: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        async def wrapped(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            async with self._around(context):
                return await behaviour(request, context)

        return wrapped

    def stream(self, behaviour: Callable[..., Any]) -> Callable[..., AsyncIterator[Any]]:
        async def wrapped(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            async with self._around(context):
                async for response in behaviour(request, context):
                    yield response

        return wrapped


class _Around:
    def __init__(
        self, method: str, header: str, security: ServerSecurity, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        self._method = method
        self._header = header
        self._security = security
        self._context = context
        self._started = time.monotonic()

    async def __aenter__(self) -> None:
        if self._security.accepts(self._header, _names(self._context)):
            return
        if self._security.callers is None:
            await self._abort(Unauthenticated("the call carries no valid token", _WHERE_IT_IS))
        allowed = ", ".join(sorted(self._security.callers or ()))
        await self._abort(Unauthenticated(f"this service answers {allowed} only", "ask the coordinator"))

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, CutoffError):
            await self._abort(error)
        if error is not None and not isinstance(error, grpc.aio.AbortError):
            self._count("CANCELLED" if not isinstance(error, Exception) else "UNKNOWN")
            if isinstance(error, Exception):
                _LOG.error("a call failed inside cutoff", method=self._method, exc_info=error)
        elif error is None:
            self._count("OK")

    async def _abort(self, error: CutoffError) -> None:
        status = status_of(error)
        self._count(status.code.name)
        await self._context.abort(status.code, status.details, status.trailing_metadata)

    def _count(self, code: str) -> None:
        GRPC_REQUESTS.labels(self._method, code).inc()
        GRPC_SECONDS.labels(self._method).observe(time.monotonic() - self._started)


def _names(context: grpc.aio.ServicerContext[Any, Any]) -> set[str]:
    """The names in the certificate that the caller showed; none where it showed none."""
    names = context.auth_context().get("x509_subject_alternative_name", ())
    return {name.decode() for name in names}
