import datetime

from cutoff.v1 import types_pb2 as _types_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ServiceStatus(_message.Message):
    __slots__ = ("name", "address", "state", "message")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[ServiceStatus.State]
        STATE_SERVING: _ClassVar[ServiceStatus.State]
        STATE_NOT_SERVING: _ClassVar[ServiceStatus.State]
        STATE_UNREACHABLE: _ClassVar[ServiceStatus.State]
    STATE_UNSPECIFIED: ServiceStatus.State
    STATE_SERVING: ServiceStatus.State
    STATE_NOT_SERVING: ServiceStatus.State
    STATE_UNREACHABLE: ServiceStatus.State
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    name: str
    address: str
    state: ServiceStatus.State
    message: str
    def __init__(self, name: _Optional[str] = ..., address: _Optional[str] = ..., state: _Optional[_Union[ServiceStatus.State, str]] = ..., message: _Optional[str] = ...) -> None: ...

class Disk(_message.Message):
    __slots__ = ("root", "path", "free_bytes", "size_bytes")
    ROOT_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    root: str
    path: str
    free_bytes: int
    size_bytes: int
    def __init__(self, root: _Optional[str] = ..., path: _Optional[str] = ..., free_bytes: _Optional[int] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("version", "time", "draining", "unfinished_jobs", "waiting_attempts", "running_attempts", "services", "disks", "gpus", "free_gpus")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    UNFINISHED_JOBS_FIELD_NUMBER: _ClassVar[int]
    WAITING_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    RUNNING_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    DISKS_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    FREE_GPUS_FIELD_NUMBER: _ClassVar[int]
    version: str
    time: _timestamp_pb2.Timestamp
    draining: bool
    unfinished_jobs: int
    waiting_attempts: int
    running_attempts: int
    services: _containers.RepeatedCompositeFieldContainer[ServiceStatus]
    disks: _containers.RepeatedCompositeFieldContainer[Disk]
    gpus: float
    free_gpus: float
    def __init__(self, version: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., draining: _Optional[bool] = ..., unfinished_jobs: _Optional[int] = ..., waiting_attempts: _Optional[int] = ..., running_attempts: _Optional[int] = ..., services: _Optional[_Iterable[_Union[ServiceStatus, _Mapping]]] = ..., disks: _Optional[_Iterable[_Union[Disk, _Mapping]]] = ..., gpus: _Optional[float] = ..., free_gpus: _Optional[float] = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ("end",)
    END_FIELD_NUMBER: _ClassVar[int]
    end: bool
    def __init__(self, end: _Optional[bool] = ...) -> None: ...

class DrainResponse(_message.Message):
    __slots__ = ("draining", "running_attempts")
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    RUNNING_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    draining: bool
    running_attempts: int
    def __init__(self, draining: _Optional[bool] = ..., running_attempts: _Optional[int] = ...) -> None: ...

class ReadLogsRequest(_message.Message):
    __slots__ = ("name", "stage", "follow")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    name: str
    stage: str
    follow: bool
    def __init__(self, name: _Optional[str] = ..., stage: _Optional[str] = ..., follow: _Optional[bool] = ...) -> None: ...

class ReadLogsResponse(_message.Message):
    __slots__ = ("key", "lines")
    KEY_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    key: _types_pb2.RunKey
    lines: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, key: _Optional[_Union[_types_pb2.RunKey, _Mapping]] = ..., lines: _Optional[_Iterable[str]] = ...) -> None: ...

class CollectGarbageRequest(_message.Message):
    __slots__ = ("min_age", "keep_jobs", "dry_run", "ggufs")
    MIN_AGE_FIELD_NUMBER: _ClassVar[int]
    KEEP_JOBS_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    GGUFS_FIELD_NUMBER: _ClassVar[int]
    min_age: _duration_pb2.Duration
    keep_jobs: int
    dry_run: bool
    ggufs: bool
    def __init__(self, min_age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., keep_jobs: _Optional[int] = ..., dry_run: _Optional[bool] = ..., ggufs: _Optional[bool] = ...) -> None: ...

class CollectGarbageResponse(_message.Message):
    __slots__ = ("name", "artifacts", "freed_bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ARTIFACTS_FIELD_NUMBER: _ClassVar[int]
    FREED_BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    artifacts: _containers.RepeatedCompositeFieldContainer[_types_pb2.Artifact]
    freed_bytes: int
    def __init__(self, name: _Optional[str] = ..., artifacts: _Optional[_Iterable[_Union[_types_pb2.Artifact, _Mapping]]] = ..., freed_bytes: _Optional[int] = ...) -> None: ...
