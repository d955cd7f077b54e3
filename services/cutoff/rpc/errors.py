"""Errors become gRPC statuses here, and come back from them; nowhere else.

A status carries the google.rpc.ErrorInfo that any client understands (reason, remedy) and the Failure
message with every fault; one that says "later" also the google.rpc.RetryInfo that says when.
"""

from __future__ import annotations

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from cutoff import errors
from cutoff.v1 import types_pb2

DOMAIN = "cutoff"

_MOST_BYTES = 2600
_TEXT_BYTES = 600
"""Of a failure in a status, and of one of its texts.

A client takes 8 KiB of headers, as a rule. The message is sent three times, once as text, in which bytes outside of
ASCII take three times their room, and the remedy twice; all but that text is base64.
"""

_CODES: dict[str, int] = {
    "INVALID_INPUT": code_pb2.INVALID_ARGUMENT,
    "NOT_FOUND": code_pb2.NOT_FOUND,
    "ALREADY_EXISTS": code_pb2.ALREADY_EXISTS,
    "FAILED_PRECONDITION": code_pb2.FAILED_PRECONDITION,
    "CHECK_FAILED": code_pb2.FAILED_PRECONDITION,
    "DISK_FULL": code_pb2.RESOURCE_EXHAUSTED,
    "OUT_OF_MEMORY": code_pb2.RESOURCE_EXHAUSTED,
    "DEVICE_BUSY": code_pb2.UNAVAILABLE,
    "LOST": code_pb2.UNAVAILABLE,
    "DEVICE_MEMORY_HELD": code_pb2.RESOURCE_EXHAUSTED,
    "UNAVAILABLE": code_pb2.UNAVAILABLE,
    "UNAUTHENTICATED": code_pb2.UNAUTHENTICATED,
    "CANCELLED": code_pb2.CANCELLED,
    "PAUSED": code_pb2.CANCELLED,
    "RATE_LIMITED": code_pb2.RESOURCE_EXHAUSTED,
    "DEADLINE_EXCEEDED": code_pb2.DEADLINE_EXCEEDED,
}
_CLASSES: dict[str, type[errors.CutoffError]] = {
    cls.reason: cls
    for cls in vars(errors).values()
    if isinstance(cls, type) and issubclass(cls, errors.CutoffError) and cls is not errors.InvalidInput
}


def failure_of(error: errors.CutoffError) -> types_pb2.Failure:
    """The message that carries an error over the wire and into the store."""
    faults = error.faults if isinstance(error, errors.InvalidInput) else ()
    return types_pb2.Failure(
        reason=error.reason,
        message=error.message,
        remedy=error.remedy,
        retryable=error.retryable,
        faults=[types_pb2.Fault(where=f.where, what=f.what, fix=f.fix) for f in faults],
    )


def error_of_failure(failure: types_pb2.Failure) -> errors.CutoffError:
    """The error a message carries; an unknown reason becomes a plain CutoffError."""
    if failure.reason == errors.InvalidInput.reason and failure.faults:
        error = errors.InvalidInput([errors.Fault(f.where, f.what, f.fix) for f in failure.faults])
        listed = [f"  {fault}" for fault in error.faults] if failure.message.endswith(":") else []
        error.message = "\n".join([failure.message, *listed])  # it may count more faults than it lists
        return error
    return _CLASSES.get(failure.reason, errors.CutoffError)(failure.message, failure.remedy)


def status_of(error: errors.CutoffError) -> grpc.Status:
    """The gRPC status of an error."""
    failure = _short(failure_of(error))
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata={"remedy": failure.remedy})
    details, messages = [], [info, failure]
    if isinstance(error, errors.TooMany):
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(int(error.seconds * 1000))
        messages.append(retry)
    for message in messages:
        packed = any_pb2.Any()
        packed.Pack(message)
        details.append(packed)
    code = _CODES.get(error.reason, code_pb2.INTERNAL)
    return rpc_status.to_status(status_pb2.Status(code=code, message=_clipped(str(error)), details=details))


def _short(failure: types_pb2.Failure) -> types_pb2.Failure:
    """A failure that fits into a status, which travels in headers: long texts are clipped, the last faults go first.

    With faults the message keeps its first line only, which counts them; `error_of_failure` adds them again.
    """
    if failure.faults and failure.message.partition("\n")[0].endswith(":"):
        failure.message = failure.message.partition("\n")[0]
    failure.message, failure.remedy = _clipped(failure.message), _clipped(failure.remedy)
    for fault in failure.faults:
        fault.where, fault.what, fault.fix = (_clipped(text, 400) for text in (fault.where, fault.what, fault.fix))
    while len(failure.faults) > 1 and failure.ByteSize() > _MOST_BYTES:
        del failure.faults[-1]
    return failure


def _clipped(text: str, most: int = _TEXT_BYTES) -> str:
    """A text of at most so many bytes in UTF-8: its beginning, and its last word."""
    whole = text.encode(errors="replace")
    if len(whole) <= most:
        return text
    return f"{whole[: most - 20].decode(errors='ignore')} [...] {whole[-12:].decode(errors='ignore')}"


def error_of_rpc(error: grpc.Call, address: str) -> errors.CutoffError:
    """What a failed call was about; calls that never reached a cutoff server become Unavailable.

    Args:
        error: The grpc.RpcError of a call on a synchronous channel, which is a grpc.Call too.
        address: The server's, for the message.
    """
    try:
        status = rpc_status.from_call(error)
    except ValueError:  # the stream broke after the status was sent
        status = None
    for detail in status.details if status is not None else ():
        failure = types_pb2.Failure()
        if detail.Unpack(failure):
            return error_of_failure(failure)
    code, text = error.code(), error.details()
    if code == grpc.StatusCode.UNAUTHENTICATED:
        return errors.Unauthenticated(text or "the server wants a token", "set CUTOFF_TOKEN_FILE")
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        return errors.Unavailable(
            f"{address} cannot be reached: {text}",
            "start one with `cutoff serve` or `docker compose up -d`, or use `cutoff run`; are CUTOFF_ADDRESS and "
            "CUTOFF_CA_FILE right?",
        )
    return errors.CutoffError(f"{address} answered {code.name}: {text}")
