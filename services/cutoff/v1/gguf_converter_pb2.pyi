from cutoff.v1 import job_pb2 as _job_pb2
from cutoff.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ConvertRequest(_message.Message):
    __slots__ = ("run", "spec", "merged", "model_name", "probe_questions", "calibration", "validation", "facts", "installs")
    RUN_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    MERGED_FIELD_NUMBER: _ClassVar[int]
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    PROBE_QUESTIONS_FIELD_NUMBER: _ClassVar[int]
    CALIBRATION_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    INSTALLS_FIELD_NUMBER: _ClassVar[int]
    run: _types_pb2.RunHeader
    spec: _job_pb2.ConvertSpec
    merged: str
    model_name: str
    probe_questions: _containers.RepeatedScalarFieldContainer[str]
    calibration: str
    validation: str
    facts: ModelFacts
    installs: bool
    def __init__(self, run: _Optional[_Union[_types_pb2.RunHeader, _Mapping]] = ..., spec: _Optional[_Union[_job_pb2.ConvertSpec, _Mapping]] = ..., merged: _Optional[str] = ..., model_name: _Optional[str] = ..., probe_questions: _Optional[_Iterable[str]] = ..., calibration: _Optional[str] = ..., validation: _Optional[str] = ..., facts: _Optional[_Union[ModelFacts, _Mapping]] = ..., installs: _Optional[bool] = ...) -> None: ...

class ModelFacts(_message.Message):
    __slots__ = ("job", "base_model", "base_revision", "license", "cutoff", "data_sha256", "recipe")
    class DataSha256Entry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    JOB_FIELD_NUMBER: _ClassVar[int]
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    BASE_REVISION_FIELD_NUMBER: _ClassVar[int]
    LICENSE_FIELD_NUMBER: _ClassVar[int]
    CUTOFF_FIELD_NUMBER: _ClassVar[int]
    DATA_SHA256_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    job: str
    base_model: str
    base_revision: str
    license: str
    cutoff: str
    data_sha256: _containers.ScalarMap[str, str]
    recipe: str
    def __init__(self, job: _Optional[str] = ..., base_model: _Optional[str] = ..., base_revision: _Optional[str] = ..., license: _Optional[str] = ..., cutoff: _Optional[str] = ..., data_sha256: _Optional[_Mapping[str, str]] = ..., recipe: _Optional[str] = ...) -> None: ...

class ConvertResponse(_message.Message):
    __slots__ = ("event",)
    EVENT_FIELD_NUMBER: _ClassVar[int]
    event: _types_pb2.Event
    def __init__(self, event: _Optional[_Union[_types_pb2.Event, _Mapping]] = ...) -> None: ...

class WriteCardRequest(_message.Message):
    __slots__ = ("run", "job")
    RUN_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    run: _types_pb2.RunHeader
    job: _job_pb2.Job
    def __init__(self, run: _Optional[_Union[_types_pb2.RunHeader, _Mapping]] = ..., job: _Optional[_Union[_job_pb2.Job, _Mapping]] = ...) -> None: ...

class WriteCardResponse(_message.Message):
    __slots__ = ("event",)
    EVENT_FIELD_NUMBER: _ClassVar[int]
    event: _types_pb2.Event
    def __init__(self, event: _Optional[_Union[_types_pb2.Event, _Mapping]] = ...) -> None: ...

class CheckInstallRequest(_message.Message):
    __slots__ = ("spec", "llama_cpp_path", "quant_type", "sha256")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    LLAMA_CPP_PATH_FIELD_NUMBER: _ClassVar[int]
    QUANT_TYPE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    spec: _job_pb2.InstallSpec
    llama_cpp_path: str
    quant_type: str
    sha256: str
    def __init__(self, spec: _Optional[_Union[_job_pb2.InstallSpec, _Mapping]] = ..., llama_cpp_path: _Optional[str] = ..., quant_type: _Optional[str] = ..., sha256: _Optional[str] = ...) -> None: ...

class CheckInstallResponse(_message.Message):
    __slots__ = ("folder",)
    FOLDER_FIELD_NUMBER: _ClassVar[int]
    folder: str
    def __init__(self, folder: _Optional[str] = ...) -> None: ...

class CheckModelRequest(_message.Message):
    __slots__ = ("spec", "description", "parameters")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    spec: _job_pb2.JobSpec
    description: str
    parameters: int
    def __init__(self, spec: _Optional[_Union[_job_pb2.JobSpec, _Mapping]] = ..., description: _Optional[str] = ..., parameters: _Optional[int] = ...) -> None: ...

class CheckModelResponse(_message.Message):
    __slots__ = ("llama_cpp",)
    LLAMA_CPP_FIELD_NUMBER: _ClassVar[int]
    llama_cpp: str
    def __init__(self, llama_cpp: _Optional[str] = ...) -> None: ...

class InstallRequest(_message.Message):
    __slots__ = ("run", "spec", "gguf", "sha256", "quant_type", "question")
    RUN_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    GGUF_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    QUANT_TYPE_FIELD_NUMBER: _ClassVar[int]
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    run: _types_pb2.RunHeader
    spec: _job_pb2.InstallSpec
    gguf: str
    sha256: str
    quant_type: str
    question: str
    def __init__(self, run: _Optional[_Union[_types_pb2.RunHeader, _Mapping]] = ..., spec: _Optional[_Union[_job_pb2.InstallSpec, _Mapping]] = ..., gguf: _Optional[str] = ..., sha256: _Optional[str] = ..., quant_type: _Optional[str] = ..., question: _Optional[str] = ...) -> None: ...

class InstallResponse(_message.Message):
    __slots__ = ("event",)
    EVENT_FIELD_NUMBER: _ClassVar[int]
    event: _types_pb2.Event
    def __init__(self, event: _Optional[_Union[_types_pb2.Event, _Mapping]] = ...) -> None: ...

class UninstallRequest(_message.Message):
    __slots__ = ("spec", "sha256")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    spec: _job_pb2.InstallSpec
    sha256: str
    def __init__(self, spec: _Optional[_Union[_job_pb2.InstallSpec, _Mapping]] = ..., sha256: _Optional[str] = ...) -> None: ...

class UninstallResponse(_message.Message):
    __slots__ = ("path",)
    PATH_FIELD_NUMBER: _ClassVar[int]
    path: str
    def __init__(self, path: _Optional[str] = ...) -> None: ...
