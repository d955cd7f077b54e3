"""What happens around every call on a server: who calls is checked, how often is limited, what changes is audited.

Errors become statuses, and calls are counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import grpc
import grpc.aio

from cutoff.errors import CutoffError, TooLate, TooMany, Unauthenticated
from cutoff.rpc.audit import Audit, about, changes
from cutoff.rpc.errors import status_of
from cutoff.rpc.limits import Buckets, Limits, Streams
from cutoff.rpc.security import LOCAL, TOKEN_HEADER, ServerSecurity
from cutoff.telemetry import logger
from cutoff.telemetry.metrics import GRPC_REQUESTS, GRPC_SECONDS

if TYPE_CHECKING:
    _Interceptor = grpc.aio.ServerInterceptor[Any, Any]
    _Context = grpc.aio.ServicerContext[Any, Any]
else:
    _Interceptor = grpc.aio.ServerInterceptor

_LOG = logger(__name__)
_OPEN_METHODS = ("/grpc.health.v1.Health/",)
"""Health checks need no token: an orchestrator has none."""

_LOOK_AGAIN_SECONDS = 5.0
"""A stream whose token was revoked, or has expired, ends after at most so long."""

_STRANGER = "unknown"
_STRANGERS_STREAMS = 20
"""Watches of the health protocol that one address may have open."""


def _no_token() -> Unauthenticated:
    """The same words for a token that is missing, wrong, expired or revoked: a stranger learns nothing from them."""
    return Unauthenticated(
        "the call carries no valid token",
        "set CUTOFF_TOKEN_FILE to a file with one of this server's tokens; whoever runs it makes one: cutoff token "
        "create NAME (containers: docker compose exec coordinator cutoff token create NAME)",
    )


class CallInterceptor(_Interceptor):
    """Wraps each method of a server."""

    def __init__(self, security: ServerSecurity, limits: Limits | None = None, audit: Audit | None = None) -> None:
        self._door = _Door(security, limits or Limits(), audit or Audit())

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """Returns the method's handler with the wrapping around it."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        headers = dict(handler_call_details.invocation_metadata)
        call = _Call(handler_call_details.method, str(headers.get(TOKEN_HEADER, "")), self._door)
        serializers = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(call.stream(handler.unary_stream), **serializers)
        if handler.stream_stream:  # reflection, where it was asked for
            return grpc.stream_stream_rpc_method_handler(call.stream(handler.stream_stream), **serializers)
        assert handler.unary_unary is not None, "no method takes a stream and answers once"
        return grpc.unary_unary_rpc_method_handler(call.unary(handler.unary_unary), **serializers)


class _Door:
    """What all calls of one server share. Lives on one event loop."""

    def __init__(self, security: ServerSecurity, limits: Limits, audit: Audit) -> None:
        self.security = security
        self.limits = limits
        self.audit = audit
        self._streams = Streams(limits.streams)
        self._strangers_streams = Streams(_STRANGERS_STREAMS)
        self._known = Buckets(limits.calls_per_second, 2 * limits.calls_per_second)
        self._strangers = Buckets(limits.strangers_per_second, 5 * limits.strangers_per_second)
        self._watched: dict[asyncio.Task[Any], str] = {}
        """By the task of an open stream, the header it came with."""
        self._ended: set[asyncio.Task[Any]] = set()
        """Those that are being ended, because their tokens are not good any more."""
        self._watching: asyncio.Task[None] | None = None

    def enter(self, header: str, context: _Context) -> str:
        """Who calls.

        Raises:
            Unauthenticated: Nobody who may.
            TooMany: The caller, or this address, calls too often.
        """
        who = self.security.caller(header, _names(context))
        if who is None:
            self._strangers.take(f"address {_host(context)}")
            callers = self.security.callers
            if callers is None:
                raise _no_token()
            raise Unauthenticated(f"this service answers {', '.join(sorted(callers))} only", "ask the coordinator")
        if who != LOCAL:
            self._known.take(who)
        return who

    def enter_open(self, context: _Context) -> str:
        """A caller of what needs no token: "address HOST".

        Raises:
            TooMany: It calls too often.
        """
        who = f"address {_host(context)}"
        if not self._anybody():
            self._strangers.take(who)
        return who

    @contextlib.contextmanager
    def stream(self, who: str, header: str) -> Iterator[None]:
        """Counts a stream, and ends it when its token is not good any more.

        Raises:
            TooMany: The caller has too many.
            Unauthenticated: Its token was revoked, or has expired.
        """
        if who == LOCAL or self._anybody():
            yield
            return
        task = asyncio.current_task()
        assert task is not None, "calls are tasks"
        streams = self._strangers_streams if who.startswith("address ") else self._streams
        with streams.one_more(who):
            if who.startswith("token:"):
                self._watch(task, header)
            try:
                yield
            except asyncio.CancelledError:
                if task not in self._ended:
                    raise
                task.uncancel()
                raise _no_token() from None
            finally:
                self._watched.pop(task, None)
                self._ended.discard(task)

    def _anybody(self) -> bool:
        """Whether nothing is asked of callers, so that they cannot be told apart."""
        security = self.security
        return security.callers is None and not (security.tokens is not None and security.tokens.required)

    def _watch(self, task: asyncio.Task[Any], header: str) -> None:
        self._watched[task] = header
        if self._watching is None or self._watching.done():
            self._watching = asyncio.get_running_loop().create_task(self._look_again())

    async def _look_again(self) -> None:
        while self._watched:
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
            good = {header: self.security.caller(header) is not None for header in set(self._watched.values())}
            for task, header in list(self._watched.items()):
                if not good[header]:
                    self._ended.add(task)
                    task.cancel()


class _Call:
    """One call: let in or refused, limited, timed, audited, counted by its outcome."""

    def __init__(self, method: str, header: str, door: _Door) -> None:
        self._header = header
        self._door = door
        self._around = partial(_Around, method, header, door)

    def unary(self, behaviour: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        async def wrapped(request: Any, context: _Context) -> Any:
            async with self._around(context, request) as around:
                around.response = await self._in_time(behaviour(request, context), context)
                return around.response

        return wrapped

    def stream(self, behaviour: Callable[..., Any]) -> Callable[..., AsyncIterator[Any]]:
        async def wrapped(request: Any, context: _Context) -> AsyncIterator[Any]:
            async with self._around(context, request) as around:
                with self._door.stream(around.who, self._header):
                    answers = behaviour(request, context)
                    if inspect.isawaitable(answers):  # it writes them itself, as the health service does
                        await answers
                        return
                    async for response in answers:
                        yield response

        return wrapped

    async def _in_time(self, answer: Awaitable[Any], context: _Context) -> Any:
        """The answer; a call without a deadline gets the server's."""
        if context.time_remaining() is not None:
            return await answer
        seconds = self._door.limits.unary_seconds
        try:
            async with asyncio.timeout(seconds):
                return await answer
        except TimeoutError as error:
            raise TooLate(f"the call took longer than {seconds:g} s", "set a deadline for the call") from error


class _Around:
    def __init__(self, method: str, header: str, door: _Door, context: _Context, request: Any) -> None:
        self.who = _STRANGER
        self.response: Any = None
        self._open = method.startswith(_OPEN_METHODS)
        self._audited = method.startswith("/cutoff.") and changes(method)
        self._method = method.removeprefix("/cutoff.v1.")
        self._header = header
        self._door = door
        self._context = context
        # Asked now: of a call whose client went away gRPC has nothing left, and asking it then ends the process.
        self._host = _host(context)
        self._request = request
        self._started = time.monotonic()

    async def __aenter__(self) -> _Around:
        try:
            enter = partial(self._door.enter, self._header) if not self._open else self._door.enter_open
            self.who = enter(self._context)
        except CutoffError as error:
            await self._abort(error)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, CutoffError):
            await self._abort(error)
        if error is not None and not isinstance(error, grpc.aio.AbortError):
            self._note("CANCELLED" if not isinstance(error, Exception) else "UNKNOWN")
            if isinstance(error, Exception):
                _LOG.error("a call failed inside cutoff", method=self._method, exc_info=error)
        elif error is None:
            self._note("OK")

    async def _abort(self, error: CutoffError) -> None:
        status = status_of(error)
        self._note(status.code.name, audited=not (isinstance(error, TooMany) and self.who == _STRANGER))
        await self._context.abort(status.code, status.details, status.trailing_metadata)

    def _note(self, code: str, audited: bool = True) -> None:
        """Counts the call, and audits it if it changes something; a flood of strangers' calls fills no disk."""
        if self._open:
            return
        GRPC_REQUESTS.labels(self._method, code).inc()
        GRPC_SECONDS.labels(self._method).observe(time.monotonic() - self._started)
        if audited and self._audited:
            what = about(self._request, self.response)
            self._door.audit.note(self.who, self._method, what, self._host, code)


def _names(context: _Context) -> set[str]:
    """The names in the certificate that the caller showed; none where it showed none."""
    names = context.auth_context().get("x509_subject_alternative_name", ())
    return {name.decode() for name in names}


def _host(context: _Context) -> str:
    """Where the caller is: its address without the port, or "unix"."""
    kind, _, rest = unquote(context.peer()).partition(":")
    return rest.rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else kind
