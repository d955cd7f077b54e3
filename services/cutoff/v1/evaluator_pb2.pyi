from cutoff.v1 import job_pb2 as _job_pb2
from cutoff.v1 import types_pb2 as _types_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EvaluateRequest(_message.Message):
    __slots__ = ("run", "spec", "target", "model_path", "gguf", "server", "adapter")
    RUN_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    MODEL_PATH_FIELD_NUMBER: _ClassVar[int]
    GGUF_FIELD_NUMBER: _ClassVar[int]
    SERVER_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    run: _types_pb2.RunHeader
    spec: _job_pb2.JobSpec
    target: str
    model_path: str
    gguf: str
    server: OpenAiServer
    adapter: AdapterModel
    def __init__(self, run: _Optional[_Union[_types_pb2.RunHeader, _Mapping]] = ..., spec: _Optional[_Union[_job_pb2.JobSpec, _Mapping]] = ..., target: _Optional[str] = ..., model_path: _Optional[str] = ..., gguf: _Optional[str] = ..., server: _Optional[_Union[OpenAiServer, _Mapping]] = ..., adapter: _Optional[_Union[AdapterModel, _Mapping]] = ...) -> None: ...

class AdapterModel(_message.Message):
    __slots__ = ("model_path", "adapter")
    MODEL_PATH_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    model_path: str
    adapter: str
    def __init__(self, model_path: _Optional[str] = ..., adapter: _Optional[str] = ...) -> None: ...

class OpenAiServer(_message.Message):
    __slots__ = ("url", "model")
    URL_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    url: str
    model: str
    def __init__(self, url: _Optional[str] = ..., model: _Optional[str] = ...) -> None: ...

class EvaluateResponse(_message.Message):
    __slots__ = ("event",)
    EVENT_FIELD_NUMBER: _ClassVar[int]
    event: _types_pb2.Event
    def __init__(self, event: _Optional[_Union[_types_pb2.Event, _Mapping]] = ...) -> None: ...

class WriteReportRequest(_message.Message):
    __slots__ = ("run", "job")
    RUN_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    run: _types_pb2.RunHeader
    job: _job_pb2.Job
    def __init__(self, run: _Optional[_Union[_types_pb2.RunHeader, _Mapping]] = ..., job: _Optional[_Union[_job_pb2.Job, _Mapping]] = ...) -> None: ...

class WriteReportResponse(_message.Message):
    __slots__ = ("event",)
    EVENT_FIELD_NUMBER: _ClassVar[int]
    event: _types_pb2.Event
    def __init__(self, event: _Optional[_Union[_types_pb2.Event, _Mapping]] = ...) -> None: ...
