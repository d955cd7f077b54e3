import datetime

from cutoff.v1 import types_pb2 as _types_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class JobSpec(_message.Message):
    __slots__ = ("name", "base_model", "cutoff", "dataset", "train", "merge", "convert", "evaluate", "install", "resources")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    CUTOFF_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    TRAIN_FIELD_NUMBER: _ClassVar[int]
    MERGE_FIELD_NUMBER: _ClassVar[int]
    CONVERT_FIELD_NUMBER: _ClassVar[int]
    EVALUATE_FIELD_NUMBER: _ClassVar[int]
    INSTALL_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    name: str
    base_model: str
    cutoff: str
    dataset: DatasetSpec
    train: TrainSpec
    merge: MergeSpec
    convert: ConvertSpec
    evaluate: EvaluateSpec
    install: InstallSpec
    resources: ResourcesSpec
    def __init__(self, name: _Optional[str] = ..., base_model: _Optional[str] = ..., cutoff: _Optional[str] = ..., dataset: _Optional[_Union[DatasetSpec, _Mapping]] = ..., train: _Optional[_Union[TrainSpec, _Mapping]] = ..., merge: _Optional[_Union[MergeSpec, _Mapping]] = ..., convert: _Optional[_Union[ConvertSpec, _Mapping]] = ..., evaluate: _Optional[_Union[EvaluateSpec, _Mapping]] = ..., install: _Optional[_Union[InstallSpec, _Mapping]] = ..., resources: _Optional[_Union[ResourcesSpec, _Mapping]] = ...) -> None: ...

class DatasetSpec(_message.Message):
    __slots__ = ("retain_train", "retain_val", "unlearn_train", "unlearn_val", "dev", "answers")
    RETAIN_TRAIN_FIELD_NUMBER: _ClassVar[int]
    RETAIN_VAL_FIELD_NUMBER: _ClassVar[int]
    UNLEARN_TRAIN_FIELD_NUMBER: _ClassVar[int]
    UNLEARN_VAL_FIELD_NUMBER: _ClassVar[int]
    DEV_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    retain_train: str
    retain_val: str
    unlearn_train: str
    unlearn_val: str
    dev: str
    answers: str
    def __init__(self, retain_train: _Optional[str] = ..., retain_val: _Optional[str] = ..., unlearn_train: _Optional[str] = ..., unlearn_val: _Optional[str] = ..., dev: _Optional[str] = ..., answers: _Optional[str] = ...) -> None: ...

class TrainSpec(_message.Message):
    __slots__ = ("method", "epochs", "batch_size", "gradient_accumulation_steps", "learning_rate", "warmup_ratio", "max_seq_length", "lora_r", "lora_alpha", "lora_dropout", "quantization", "prompt_format", "eval_steps", "save_steps", "seed", "report_to", "resume_from_checkpoint", "retain_loss", "retain_weight", "forget_weight", "beta", "delta", "then", "early_stopping_patience", "memory_budget_gib", "attention", "eval_limit")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_ACCUMULATION_STEPS_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    WARMUP_RATIO_FIELD_NUMBER: _ClassVar[int]
    MAX_SEQ_LENGTH_FIELD_NUMBER: _ClassVar[int]
    LORA_R_FIELD_NUMBER: _ClassVar[int]
    LORA_ALPHA_FIELD_NUMBER: _ClassVar[int]
    LORA_DROPOUT_FIELD_NUMBER: _ClassVar[int]
    QUANTIZATION_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FORMAT_FIELD_NUMBER: _ClassVar[int]
    EVAL_STEPS_FIELD_NUMBER: _ClassVar[int]
    SAVE_STEPS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    REPORT_TO_FIELD_NUMBER: _ClassVar[int]
    RESUME_FROM_CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    RETAIN_LOSS_FIELD_NUMBER: _ClassVar[int]
    RETAIN_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    FORGET_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    BETA_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    THEN_FIELD_NUMBER: _ClassVar[int]
    EARLY_STOPPING_PATIENCE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BUDGET_GIB_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_FIELD_NUMBER: _ClassVar[int]
    EVAL_LIMIT_FIELD_NUMBER: _ClassVar[int]
    method: str
    epochs: float
    batch_size: int
    gradient_accumulation_steps: int
    learning_rate: float
    warmup_ratio: float
    max_seq_length: int
    lora_r: int
    lora_alpha: int
    lora_dropout: float
    quantization: str
    prompt_format: str
    eval_steps: int
    save_steps: int
    seed: int
    report_to: _containers.RepeatedScalarFieldContainer[str]
    resume_from_checkpoint: str
    retain_loss: str
    retain_weight: float
    forget_weight: float
    beta: float
    delta: float
    then: _containers.RepeatedCompositeFieldContainer[StageSpec]
    early_stopping_patience: int
    memory_budget_gib: float
    attention: str
    eval_limit: int
    def __init__(self, method: _Optional[str] = ..., epochs: _Optional[float] = ..., batch_size: _Optional[int] = ..., gradient_accumulation_steps: _Optional[int] = ..., learning_rate: _Optional[float] = ..., warmup_ratio: _Optional[float] = ..., max_seq_length: _Optional[int] = ..., lora_r: _Optional[int] = ..., lora_alpha: _Optional[int] = ..., lora_dropout: _Optional[float] = ..., quantization: _Optional[str] = ..., prompt_format: _Optional[str] = ..., eval_steps: _Optional[int] = ..., save_steps: _Optional[int] = ..., seed: _Optional[int] = ..., report_to: _Optional[_Iterable[str]] = ..., resume_from_checkpoint: _Optional[str] = ..., retain_loss: _Optional[str] = ..., retain_weight: _Optional[float] = ..., forget_weight: _Optional[float] = ..., beta: _Optional[float] = ..., delta: _Optional[float] = ..., then: _Optional[_Iterable[_Union[StageSpec, _Mapping]]] = ..., early_stopping_patience: _Optional[int] = ..., memory_budget_gib: _Optional[float] = ..., attention: _Optional[str] = ..., eval_limit: _Optional[int] = ...) -> None: ...

class StageSpec(_message.Message):
    __slots__ = ("method", "epochs", "learning_rate", "retain_loss", "retain_weight", "forget_weight", "beta", "delta")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    RETAIN_LOSS_FIELD_NUMBER: _ClassVar[int]
    RETAIN_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    FORGET_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    BETA_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    method: str
    epochs: float
    learning_rate: float
    retain_loss: str
    retain_weight: float
    forget_weight: float
    beta: float
    delta: float
    def __init__(self, method: _Optional[str] = ..., epochs: _Optional[float] = ..., learning_rate: _Optional[float] = ..., retain_loss: _Optional[str] = ..., retain_weight: _Optional[float] = ..., forget_weight: _Optional[float] = ..., beta: _Optional[float] = ..., delta: _Optional[float] = ...) -> None: ...

class MergeSpec(_message.Message):
    __slots__ = ("dtype", "verify", "base")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    VERIFY_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    dtype: str
    verify: bool
    base: str
    def __init__(self, dtype: _Optional[str] = ..., verify: _Optional[bool] = ..., base: _Optional[str] = ...) -> None: ...

class ConvertSpec(_message.Message):
    __slots__ = ("quant_types", "llama_cpp_path", "imatrix", "keep_f16")
    QUANT_TYPES_FIELD_NUMBER: _ClassVar[int]
    LLAMA_CPP_PATH_FIELD_NUMBER: _ClassVar[int]
    IMATRIX_FIELD_NUMBER: _ClassVar[int]
    KEEP_F16_FIELD_NUMBER: _ClassVar[int]
    quant_types: _containers.RepeatedScalarFieldContainer[str]
    llama_cpp_path: str
    imatrix: str
    keep_f16: bool
    def __init__(self, quant_types: _Optional[_Iterable[str]] = ..., llama_cpp_path: _Optional[str] = ..., imatrix: _Optional[str] = ..., keep_f16: _Optional[bool] = ...) -> None: ...

class EvaluateSpec(_message.Message):
    __slots__ = ("targets", "max_tokens", "limit", "test_file", "attacks", "verbose", "lmstudio_url", "lmstudio_model", "heldout_file", "judge_url", "judge_model", "control", "relearn")
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    TEST_FILE_FIELD_NUMBER: _ClassVar[int]
    ATTACKS_FIELD_NUMBER: _ClassVar[int]
    VERBOSE_FIELD_NUMBER: _ClassVar[int]
    LMSTUDIO_URL_FIELD_NUMBER: _ClassVar[int]
    LMSTUDIO_MODEL_FIELD_NUMBER: _ClassVar[int]
    HELDOUT_FILE_FIELD_NUMBER: _ClassVar[int]
    JUDGE_URL_FIELD_NUMBER: _ClassVar[int]
    JUDGE_MODEL_FIELD_NUMBER: _ClassVar[int]
    CONTROL_FIELD_NUMBER: _ClassVar[int]
    RELEARN_FIELD_NUMBER: _ClassVar[int]
    targets: _containers.RepeatedScalarFieldContainer[str]
    max_tokens: int
    limit: int
    test_file: str
    attacks: _containers.RepeatedScalarFieldContainer[str]
    verbose: bool
    lmstudio_url: str
    lmstudio_model: str
    heldout_file: str
    judge_url: str
    judge_model: str
    control: str
    relearn: RelearnSpec
    def __init__(self, targets: _Optional[_Iterable[str]] = ..., max_tokens: _Optional[int] = ..., limit: _Optional[int] = ..., test_file: _Optional[str] = ..., attacks: _Optional[_Iterable[str]] = ..., verbose: _Optional[bool] = ..., lmstudio_url: _Optional[str] = ..., lmstudio_model: _Optional[str] = ..., heldout_file: _Optional[str] = ..., judge_url: _Optional[str] = ..., judge_model: _Optional[str] = ..., control: _Optional[str] = ..., relearn: _Optional[_Union[RelearnSpec, _Mapping]] = ...) -> None: ...

class RelearnSpec(_message.Message):
    __slots__ = ("examples", "epochs", "learning_rate", "file")
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    examples: int
    epochs: float
    learning_rate: float
    file: str
    def __init__(self, examples: _Optional[int] = ..., epochs: _Optional[float] = ..., learning_rate: _Optional[float] = ..., file: _Optional[str] = ...) -> None: ...

class InstallSpec(_message.Message):
    __slots__ = ("enabled", "publisher", "model_name", "require", "replace", "quant")
    ENABLED_FIELD_NUMBER: _ClassVar[int]
    PUBLISHER_FIELD_NUMBER: _ClassVar[int]
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    REQUIRE_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    QUANT_FIELD_NUMBER: _ClassVar[int]
    enabled: bool
    publisher: str
    model_name: str
    require: str
    replace: bool
    quant: str
    def __init__(self, enabled: _Optional[bool] = ..., publisher: _Optional[str] = ..., model_name: _Optional[str] = ..., require: _Optional[str] = ..., replace: _Optional[bool] = ..., quant: _Optional[str] = ...) -> None: ...

class ResourcesSpec(_message.Message):
    __slots__ = ("gpus", "priority", "wait_minutes")
    GPUS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    WAIT_MINUTES_FIELD_NUMBER: _ClassVar[int]
    gpus: float
    priority: int
    wait_minutes: float
    def __init__(self, gpus: _Optional[float] = ..., priority: _Optional[int] = ..., wait_minutes: _Optional[float] = ...) -> None: ...

class Job(_message.Message):
    __slots__ = ("name", "spec", "state", "create_time", "start_time", "end_time", "attempts", "failure", "result", "last_sequence", "waiting", "pause")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Job.State]
        STATE_QUEUED: _ClassVar[Job.State]
        STATE_RUNNING: _ClassVar[Job.State]
        STATE_CANCELLING: _ClassVar[Job.State]
        STATE_SUCCEEDED: _ClassVar[Job.State]
        STATE_FAILED: _ClassVar[Job.State]
        STATE_CANCELLED: _ClassVar[Job.State]
        STATE_PAUSING: _ClassVar[Job.State]
        STATE_PAUSED: _ClassVar[Job.State]
    STATE_UNSPECIFIED: Job.State
    STATE_QUEUED: Job.State
    STATE_RUNNING: Job.State
    STATE_CANCELLING: Job.State
    STATE_SUCCEEDED: Job.State
    STATE_FAILED: Job.State
    STATE_CANCELLED: Job.State
    STATE_PAUSING: Job.State
    STATE_PAUSED: Job.State
    NAME_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    PAUSE_FIELD_NUMBER: _ClassVar[int]
    name: str
    spec: JobSpec
    state: Job.State
    create_time: _timestamp_pb2.Timestamp
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    attempts: _containers.RepeatedCompositeFieldContainer[Attempt]
    failure: _types_pb2.Failure
    result: Result
    last_sequence: int
    waiting: Waiting
    pause: Pause
    def __init__(self, name: _Optional[str] = ..., spec: _Optional[_Union[JobSpec, _Mapping]] = ..., state: _Optional[_Union[Job.State, str]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., attempts: _Optional[_Iterable[_Union[Attempt, _Mapping]]] = ..., failure: _Optional[_Union[_types_pb2.Failure, _Mapping]] = ..., result: _Optional[_Union[Result, _Mapping]] = ..., last_sequence: _Optional[int] = ..., waiting: _Optional[_Union[Waiting, _Mapping]] = ..., pause: _Optional[_Union[Pause, _Mapping]] = ...) -> None: ...

class Waiting(_message.Message):
    __slots__ = ("stage", "reason", "message", "position", "length", "since", "processes")
    class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        REASON_UNSPECIFIED: _ClassVar[Waiting.Reason]
        REASON_GPUS_HELD: _ClassVar[Waiting.Reason]
        REASON_OTHERS_FIRST: _ClassVar[Waiting.Reason]
        REASON_MEMORY_HELD: _ClassVar[Waiting.Reason]
        REASON_MEMORY_SHARED: _ClassVar[Waiting.Reason]
    REASON_UNSPECIFIED: Waiting.Reason
    REASON_GPUS_HELD: Waiting.Reason
    REASON_OTHERS_FIRST: Waiting.Reason
    REASON_MEMORY_HELD: Waiting.Reason
    REASON_MEMORY_SHARED: Waiting.Reason
    STAGE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    stage: str
    reason: Waiting.Reason
    message: str
    position: int
    length: int
    since: _timestamp_pb2.Timestamp
    processes: _containers.RepeatedCompositeFieldContainer[_types_pb2.DeviceProcess]
    def __init__(self, stage: _Optional[str] = ..., reason: _Optional[_Union[Waiting.Reason, str]] = ..., message: _Optional[str] = ..., position: _Optional[int] = ..., length: _Optional[int] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., processes: _Optional[_Iterable[_Union[_types_pb2.DeviceProcess, _Mapping]]] = ...) -> None: ...

class Pause(_message.Message):
    __slots__ = ("by", "reason", "time")
    BY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    by: str
    reason: str
    time: _timestamp_pb2.Timestamp
    def __init__(self, by: _Optional[str] = ..., reason: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Attempt(_message.Message):
    __slots__ = ("key", "state", "create_time", "start_time", "end_time", "progress", "failure", "artifacts", "result", "last_event", "order", "host", "address")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Attempt.State]
        STATE_WAITING: _ClassVar[Attempt.State]
        STATE_RUNNING: _ClassVar[Attempt.State]
        STATE_SUCCEEDED: _ClassVar[Attempt.State]
        STATE_FAILED: _ClassVar[Attempt.State]
        STATE_CANCELLED: _ClassVar[Attempt.State]
    STATE_UNSPECIFIED: Attempt.State
    STATE_WAITING: Attempt.State
    STATE_RUNNING: Attempt.State
    STATE_SUCCEEDED: Attempt.State
    STATE_FAILED: Attempt.State
    STATE_CANCELLED: Attempt.State
    KEY_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    ARTIFACTS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    LAST_EVENT_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    key: _types_pb2.RunKey
    state: Attempt.State
    create_time: _timestamp_pb2.Timestamp
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    progress: _types_pb2.Progress
    failure: _types_pb2.Failure
    artifacts: _containers.RepeatedCompositeFieldContainer[_types_pb2.Artifact]
    result: _struct_pb2.Struct
    last_event: int
    order: InstallOrder
    host: str
    address: str
    def __init__(self, key: _Optional[_Union[_types_pb2.RunKey, _Mapping]] = ..., state: _Optional[_Union[Attempt.State, str]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., progress: _Optional[_Union[_types_pb2.Progress, _Mapping]] = ..., failure: _Optional[_Union[_types_pb2.Failure, _Mapping]] = ..., artifacts: _Optional[_Iterable[_Union[_types_pb2.Artifact, _Mapping]]] = ..., result: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., last_event: _Optional[int] = ..., order: _Optional[_Union[InstallOrder, _Mapping]] = ..., host: _Optional[str] = ..., address: _Optional[str] = ...) -> None: ...

class InstallOrder(_message.Message):
    __slots__ = ("quant_type", "replace")
    QUANT_TYPE_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    quant_type: str
    replace: bool
    def __init__(self, quant_type: _Optional[str] = ..., replace: _Optional[bool] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("evaluations", "installed_path", "installed_sha256", "missed")
    EVALUATIONS_FIELD_NUMBER: _ClassVar[int]
    INSTALLED_PATH_FIELD_NUMBER: _ClassVar[int]
    INSTALLED_SHA256_FIELD_NUMBER: _ClassVar[int]
    MISSED_FIELD_NUMBER: _ClassVar[int]
    evaluations: _containers.RepeatedCompositeFieldContainer[Evaluation]
    installed_path: str
    installed_sha256: str
    missed: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, evaluations: _Optional[_Iterable[_Union[Evaluation, _Mapping]]] = ..., installed_path: _Optional[str] = ..., installed_sha256: _Optional[str] = ..., missed: _Optional[_Iterable[str]] = ...) -> None: ...

class Evaluation(_message.Message):
    __slots__ = ("target", "question_set", "retain_correct", "retain_refused", "unlearn_refused", "unlearn_leaked", "unlearn_forgotten", "temporal_accuracy")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    QUESTION_SET_FIELD_NUMBER: _ClassVar[int]
    RETAIN_CORRECT_FIELD_NUMBER: _ClassVar[int]
    RETAIN_REFUSED_FIELD_NUMBER: _ClassVar[int]
    UNLEARN_REFUSED_FIELD_NUMBER: _ClassVar[int]
    UNLEARN_LEAKED_FIELD_NUMBER: _ClassVar[int]
    UNLEARN_FORGOTTEN_FIELD_NUMBER: _ClassVar[int]
    TEMPORAL_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    target: str
    question_set: str
    retain_correct: Score
    retain_refused: Score
    unlearn_refused: Score
    unlearn_leaked: Score
    unlearn_forgotten: Score
    temporal_accuracy: Score
    def __init__(self, target: _Optional[str] = ..., question_set: _Optional[str] = ..., retain_correct: _Optional[_Union[Score, _Mapping]] = ..., retain_refused: _Optional[_Union[Score, _Mapping]] = ..., unlearn_refused: _Optional[_Union[Score, _Mapping]] = ..., unlearn_leaked: _Optional[_Union[Score, _Mapping]] = ..., unlearn_forgotten: _Optional[_Union[Score, _Mapping]] = ..., temporal_accuracy: _Optional[_Union[Score, _Mapping]] = ...) -> None: ...

class Score(_message.Message):
    __slots__ = ("count", "total", "low", "high")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    count: int
    total: int
    low: float
    high: float
    def __init__(self, count: _Optional[int] = ..., total: _Optional[int] = ..., low: _Optional[float] = ..., high: _Optional[float] = ...) -> None: ...

class SubmitJobRequest(_message.Message):
    __slots__ = ("spec", "request_id")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    spec: JobSpec
    request_id: str
    def __init__(self, spec: _Optional[_Union[JobSpec, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class SubmitJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class GetJobRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class ListJobsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListJobsResponse(_message.Message):
    __slots__ = ("jobs", "next_page_token")
    JOBS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[Job]
    next_page_token: str
    def __init__(self, jobs: _Optional[_Iterable[_Union[Job, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class WatchJobRequest(_message.Message):
    __slots__ = ("name", "after_sequence")
    NAME_FIELD_NUMBER: _ClassVar[int]
    AFTER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    after_sequence: int
    def __init__(self, name: _Optional[str] = ..., after_sequence: _Optional[int] = ...) -> None: ...

class WatchJobResponse(_message.Message):
    __slots__ = ("event",)
    EVENT_FIELD_NUMBER: _ClassVar[int]
    event: JobEvent
    def __init__(self, event: _Optional[_Union[JobEvent, _Mapping]] = ...) -> None: ...

class JobEvent(_message.Message):
    __slots__ = ("sequence", "time", "job", "run", "waiting")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    time: _timestamp_pb2.Timestamp
    job: Job
    run: RunEvent
    waiting: Waiting
    def __init__(self, sequence: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., job: _Optional[_Union[Job, _Mapping]] = ..., run: _Optional[_Union[RunEvent, _Mapping]] = ..., waiting: _Optional[_Union[Waiting, _Mapping]] = ...) -> None: ...

class RunEvent(_message.Message):
    __slots__ = ("key", "event")
    KEY_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    key: _types_pb2.RunKey
    event: _types_pb2.Event
    def __init__(self, key: _Optional[_Union[_types_pb2.RunKey, _Mapping]] = ..., event: _Optional[_Union[_types_pb2.Event, _Mapping]] = ...) -> None: ...

class CancelJobRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class CancelJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class RetryJobRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class RetryJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class PauseJobRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class PauseJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class ResumeJobRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ResumeJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class InstallJobRequest(_message.Message):
    __slots__ = ("name", "quant_type", "replace")
    NAME_FIELD_NUMBER: _ClassVar[int]
    QUANT_TYPE_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    name: str
    quant_type: str
    replace: bool
    def __init__(self, name: _Optional[str] = ..., quant_type: _Optional[str] = ..., replace: _Optional[bool] = ...) -> None: ...

class InstallJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class UninstallJobRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class UninstallJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class GetReportRequest(_message.Message):
    __slots__ = ("name", "format")
    class Format(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        FORMAT_UNSPECIFIED: _ClassVar[GetReportRequest.Format]
        FORMAT_JSON: _ClassVar[GetReportRequest.Format]
        FORMAT_HTML: _ClassVar[GetReportRequest.Format]
    FORMAT_UNSPECIFIED: GetReportRequest.Format
    FORMAT_JSON: GetReportRequest.Format
    FORMAT_HTML: GetReportRequest.Format
    NAME_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    name: str
    format: GetReportRequest.Format
    def __init__(self, name: _Optional[str] = ..., format: _Optional[_Union[GetReportRequest.Format, str]] = ...) -> None: ...

class GetReportResponse(_message.Message):
    __slots__ = ("content",)
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    content: bytes
    def __init__(self, content: _Optional[bytes] = ...) -> None: ...
