"""The fields of a job, their defaults (the user's document) and what each of them may be."""

from __future__ import annotations

import datetime
import difflib
import re
import unicodedata
from typing import Annotated, Literal, Self, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from cutoff.spec.quant_types import NEEDS_IMATRIX, QuantType
from cutoff.spec.servers import server_of

Target = Literal["base", "adapter", "merged", "gguf", "lmstudio"]
"""What can be evaluated; adapter means base plus adapter, gguf every quantization type of the job."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}\Z")
_LONGEST = 4096
"""Characters of any text of a job."""
_PART = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}"
_HUB_ID = re.compile(rf"{_PART}/{_PART}(@{_PART}(/{_PART}){{0,7}})?\Z")
"""Becomes a path in the cache: no part is "..", and (as on the hub) none holds ".." or "--"."""


T = TypeVar("T")


def _as_list(value: object) -> object:
    """A before-validator: a single word is a list of one, and upper case as in file names is fine."""
    words = [value] if isinstance(value, str) else value
    return [word.lower() if isinstance(word, str) else word for word in words] if isinstance(words, list) else words


_PRIORITIES = {"low": -10, "normal": 0, "high": 10}


def _priority(value: object) -> object:
    """A before-validator: the three words stand for numbers."""
    if isinstance(value, str):
        if value.lower() not in _PRIORITIES:
            raise ValueError("give low, normal, high, or a whole number")
        return _PRIORITIES[value.lower()]
    return value


Priority = Annotated[int, BeforeValidator(_priority)]


def _no_control_characters(value: object) -> object:
    """A before-validator of every text: a NUL ends a path, a line break a log line, an escape drives a terminal."""
    if isinstance(value, str) and (len(value) > _LONGEST or any(unicodedata.category(char) == "Cc" for char in value)):
        raise ValueError(f"holds control characters, or more than {_LONGEST}")
    return value


def _server_url(value: str) -> str:
    server_of(value)
    return value


def _plain_name(value: str) -> str:
    if not _NAME.match(value):
        raise ValueError("use letters, digits, '.', '_' and '-', at most 96, and begin with a letter or digit")
    return value


def attack_names(value: object) -> object:
    """A before-validator: `all` names every attack, an unknown name is answered with the nearest.

    Raises:
        ValueError: With every unknown name.
    """
    known: tuple[str, ...] = get_args(AttackName)
    words = _as_list(value)
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        return words
    if words == ["all"]:
        return list(known)
    wrong = []
    for word in dict.fromkeys(words):
        if word not in known:
            nearest = difflib.get_close_matches(word, known, n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else f"known: {', '.join(known)}; or `all` alone"
            wrong.append(f"{word!r} is no attack, {hint}")
    if wrong:
        raise ValueError("; ".join(wrong))
    return list(dict.fromkeys(words))


def _not_empty(values: tuple[T, ...]) -> tuple[T, ...]:
    """An after-validator: pydantic's own min_length repeats itself for each item that is wrong."""
    if not values:
        raise ValueError("should have at least 1 item")
    return values


def names_folder(model: str) -> bool:
    """Whether a model is named by its folder, and not by its hub id: the name begins with /, ./, ../ or ~."""
    return model.startswith(("/", "./", "../", "~"))


def _model_name(value: str) -> str:
    repository = value.partition("@")[0]
    is_hub_id = _HUB_ID.match(value) and ".." not in repository and "--" not in repository
    if not names_folder(value) and not is_hub_id:
        raise ValueError(
            "neither a hub id (owner/name, optionally @revision) nor a folder (begin a folder with / or ./)"
        )
    return value


Name = Annotated[str, AfterValidator(_plain_name)]
"""A name that becomes part of a path: it cannot leave its folder."""
ServerUrl = Annotated[str, AfterValidator(_server_url)]
"""http(s)://HOST[:PORT][/PATH]; which hosts, the operator says (`servers`)."""


Method = Literal["sft", "grad_ascent", "grad_diff", "npo", "simnpo", "dpo"]
"""The training objectives; cutoff.trainer.objectives has their formulas."""

MergeBase = Literal["original", "dequantized"]
"""What an adapter that was trained on packed weights is merged into; docs/merging.md says when which is better."""

AttackName = Literal[
    "reworded_polite",
    "reworded_chatty",
    "reworded_exam",
    "reworded_careless",
    "few_shot",
    "role_play",
    "system_override",
    "answer_prefix",
    "frame_german",
    "frame_french",
    "frame_spanish",
]
"""Ways of asking that are meant to get a forgotten answer all the same; cutoff.evaluator.attacks has their words."""

RetainLoss = Literal["nll", "kl"]
"""What holds on to the retain set: its answers' likelihood, or nearness to the base model's distribution."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _a_number_is_no_yes(cls, value: object, info: ValidationInfo) -> object:
        """A before-validator: pydantic takes `yes` for 1 where a number is meant."""
        meant = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and {int, float} & {meant, *get_args(meant)}:
            raise ValueError("give a number, not yes or no")
        return _no_control_characters(value)


class DatasetSpec(_Section):
    """JSONL files, relative to the datasets root: the four, or one mixed `dev` file."""

    retain_train: str | None = None
    """What to keep, with true answers."""
    retain_val: str | None = None
    """The same for validation; install.require is measured on it."""
    unlearn_train: str | None = None
    """What to forget, with refusals."""
    unlearn_val: str | None = None
    """The same for validation; install.require is measured on it."""
    dev: str | None = None
    """One small mixed file instead of the four; about a tenth of it is held back for validation."""
    answers: str | None = None
    """True answers of unlearn questions whose metadata.original_answer lacks."""

    @model_validator(mode="after")
    def _one_way_or_the_other(self) -> Self:
        four = (self.retain_train, self.retain_val, self.unlearn_train, self.unlearn_val)
        if self.dev is not None and any(four):
            raise ValueError("give either dev or the four files, not both")
        if self.dev is None and not all(four):
            raise ValueError("give retain_train, retain_val, unlearn_train and unlearn_val, or dev")
        return self

    def files(self) -> dict[str, str]:
        """The files that were given, by field name."""
        return {name: value for name, value in self.model_dump().items() if value is not None}


class StageSpec(_Section):
    """A further stage of a staged recipe: it goes on with the same adapter and a learning rate of its own."""

    method: Method
    """The objective."""
    epochs: float = Field(1, gt=0, le=1000)
    """Passes over the training data."""
    learning_rate: float | None = Field(None, gt=0, le=1)
    """The highest; train.learning_rate by default."""
    retain_loss: RetainLoss | None = None
    """train.retain_loss by default."""
    retain_weight: float | None = Field(None, ge=0, le=1000)
    """train.retain_weight by default."""
    forget_weight: float | None = Field(None, gt=0, le=1000)
    """The method's own by default."""
    beta: float | None = Field(None, gt=0, le=1000)
    """The method's own by default."""
    delta: float | None = Field(None, ge=0, le=100)
    """The method's own by default."""

    @property
    def needs_true_answers(self) -> bool:
        """Whether its method unlearns true answers, and so must know them; sft teaches refusals instead."""
        return self.method != "sft"


class TrainSpec(_Section):
    """The fine-tuning recipe. Defaults are the user's document's."""

    method: Method = "sft"
    """The objective; docs/objectives.md says what each does. sft trains on answers and refusals as they stand."""
    epochs: float = Field(3, gt=0, le=1000)
    """Passes over the training data."""
    batch_size: int = Field(4, ge=1, le=4096)
    """Times gradient_accumulation_steps: examples of one optimizer step. Memory decides how many go at a time."""
    gradient_accumulation_steps: int = Field(4, ge=1, le=4096)
    """Times batch_size: examples of one optimizer step. Only the product matters (docs/training.md)."""
    learning_rate: float = Field(2e-4, gt=0, le=1)
    """The highest; a cosine schedule with warm-up leads to it and from it."""
    warmup_ratio: float = Field(0.1, ge=0, le=1)
    """The share of all optimizer steps over which the learning rate rises."""
    max_seq_length: int = Field(512, ge=8, le=1_048_576)
    """In tokens, prompt and answer together."""
    lora_r: int = Field(16, ge=1, le=1024)
    """The adapter's rank."""
    lora_alpha: int = Field(32, ge=1, le=8192)
    """The adapter's scale, as alpha / r."""
    lora_dropout: float = Field(0.05, ge=0, lt=1)
    """Dropout before the adapter, while training."""
    retain_loss: RetainLoss = "nll"
    """What holds on to the retain set beside an unlearning objective: nll of its answers, or kl to the base model."""
    retain_weight: float = Field(1.0, ge=0, le=1000)
    """alpha: the weight of the retain term. grad_ascent has none, and sft weighs every answer token alike."""
    forget_weight: float | None = Field(None, gt=0, le=1000)
    """gamma: the weight of the forget term; by default the method's own (simnpo 0.125, else 1)."""
    beta: float | None = Field(None, gt=0, le=1000)
    """The sharpness of npo, dpo (0.1) and simnpo (4.5); in brackets the defaults."""
    delta: float | None = Field(None, ge=0, le=100)
    """simnpo's margin, in nats per token (0)."""
    then: tuple[StageSpec, ...] = ()
    """Further stages that go on with the same adapter: [{method: npo, epochs: 1}] after sft, say."""
    early_stopping_patience: int | None = Field(None, ge=1, le=1000)
    """Stop after so many evaluations in a row without a lower validation loss; never by default."""
    memory_budget_gib: float | None = Field(None, gt=0, le=4096)
    """What training may take of the device's memory (of the machine's, on the CPU); by default what is free."""
    attention: Literal["auto", "sdpa", "eager"] = "auto"
    """auto takes what is known to work on the device."""
    quantization: Literal["none", "4bit", "8bit"] = "none"
    """How the frozen base is held while training: 4bit is QLoRA (NF4, double quantization)."""
    prompt_format: Literal["chat", "alpaca"] = "chat"
    """chat renders prompts with the model's own chat template; alpaca is for base models without one."""
    eval_steps: int = Field(100, ge=1)
    """Optimizer steps between evaluations; shrunk to fit a short run."""
    eval_limit: int = Field(200, ge=1)
    """At most this many validation examples a side are measured while training, drawn with the seed."""
    save_steps: int = Field(500, ge=1)
    """Optimizer steps between checkpoints; shrunk to fit a short run."""
    seed: int = Field(42, ge=0, le=2**32 - 1)
    """Of the data order, the adapter's start, dropout, and the questions that evaluate.limit draws."""
    report_to: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    """Experiment trackers; each must be installed beside cutoff."""
    resume_from_checkpoint: str | None = None
    """A checkpoint folder, relative to the artifacts root."""

    @property
    def stages(self) -> tuple[StageSpec, ...]:
        """What is trained, one after the other; the first is what `train` itself says."""
        given = {name: getattr(self, name) for name in StageSpec.model_fields}
        inherited = {name: given[name] for name in ("learning_rate", "retain_loss", "retain_weight")}
        later = [{**inherited, **stage.model_dump(exclude_none=True)} for stage in self.then]
        return tuple(StageSpec.model_validate(values) for values in (given, *later))

    @property
    def needs_true_answers(self) -> bool:
        """Whether a stage unlearns true answers."""
        return any(stage.needs_true_answers for stage in self.stages)


class MergeSpec(_Section):
    """How the adapter is merged."""

    dtype: Literal["float16", "bfloat16", "float32"] = "bfloat16"
    """The merged model's data type."""
    verify: bool = True
    """Compare the merged model's logits with base plus adapter, and refuse to publish when they differ."""
    base: MergeBase = "original"
    """Never packed weights: original is the 16-bit base; dequantized what 4bit or 8bit training saw of it, unpacked."""


class ConvertSpec(_Section):
    """Which GGUF files are made. The first quantization type is the one that is installed."""

    quant_types: Annotated[tuple[QuantType, ...], BeforeValidator(_as_list), AfterValidator(_not_empty)] = ("q4_k_m",)
    """The first is installed, the others stay with the job."""
    imatrix: Literal["auto", "always", "never"] = "auto"
    """An importance matrix from the retain data: auto makes one for I types and q2_k_s, always uses it for all."""
    keep_f16: bool = False
    """Keep the 16-bit file that the others are quantized from; it goes with the last of them otherwise."""
    llama_cpp_path: str | None = None
    """A llama.cpp of one's own instead of the pinned build; a server allows folders in CUTOFF_LLAMA_CPP_PATHS only."""

    @model_validator(mode="after")
    def _what_needs_an_importance_matrix_gets_one(self) -> Self:
        needy = [name for name in self.quant_types if name in NEEDS_IMATRIX]
        if self.imatrix == "never" and needy:
            raise ValueError(f"{', '.join(needy)} cannot be made without an importance matrix: set imatrix: auto")
        return self

    @model_validator(mode="after")
    def _no_type_twice(self) -> Self:
        if len(set(self.quant_types)) < len(self.quant_types):
            raise ValueError(f"quant_types names a type twice: {', '.join(self.quant_types)}")
        return self


class RelearnSpec(_Section):
    """A short fine-tuning of the merged model on unrelated data; what it brings back is evaluated as `relearned`."""

    examples: int = Field(100, ge=1, le=1_000_000)
    """So many are drawn with the seed, a tenth more to validate with; fewer where there are fewer."""
    epochs: float = Field(3, gt=0, le=1000)
    """Passes over them."""
    learning_rate: float | None = Field(None, gt=0, le=1)
    """The highest; train.learning_rate by default."""
    file: str | None = None
    """Questions and answers that have nothing to do with what came later; by default of the retain training data."""


class EvaluateSpec(_Section):
    """Which targets are asked which questions."""

    targets: Annotated[tuple[Target, ...], AfterValidator(_not_empty)] = ("base", "merged", "gguf")
    """adapter is base plus adapter, as trained; gguf every quantization type; lmstudio a server that is running."""
    max_tokens: int = Field(256, ge=1, le=32_768)
    """The longest answer."""
    limit: int = Field(500, ge=1)
    """At most this many questions a side (retain, unlearn) and set, drawn with the seed."""
    test_file: str | None = None
    """Questions asked beside the validation sets, relative to the datasets root; reported as `test`."""
    heldout_file: str | None = None
    """Questions about facts that no training set holds, relative to the datasets root; reported as `heldout`."""
    attacks: Annotated[tuple[AttackName, ...], BeforeValidator(attack_names)] = ()
    """Also ask up to 100 unlearn questions in these ways; `all` names every one (docs/attacks.md)."""
    control: str | None = None
    """A model that never saw what came later, named as base_model is; asked the same as the others and shown beside."""
    relearn: RelearnSpec | None = None
    """Whether a short fine-tuning on unrelated data brings back what was forgotten; `{}` takes the defaults below."""
    verbose: bool = False
    """Log each example with its grade."""
    lmstudio_url: ServerUrl = "http://localhost:1234/v1"
    """The OpenAI-compatible server of the target lmstudio."""
    lmstudio_model: str | None = None
    """The model that server is asked for, as `lms ps` names it."""
    judge_url: ServerUrl | None = None
    """An OpenAI-compatible server whose model grades the answers that the rules cannot decide."""
    judge_model: str | None = None
    """The model of that server."""

    def files(self) -> dict[str, str]:
        """The files that were given, by field name."""
        relearnt = self.relearn.file if self.relearn else None
        given = {"test_file": self.test_file, "heldout_file": self.heldout_file, "relearn.file": relearnt}
        return {field: name for field, name in given.items() if name is not None}

    @field_validator("control")
    @classmethod
    def _control_is_a_folder_or_a_hub_id(cls, value: str | None) -> str | None:
        return None if value is None else _model_name(value)

    @model_validator(mode="after")
    def _lmstudio_needs_a_model(self) -> Self:
        if "lmstudio" in self.targets and not self.lmstudio_model:
            raise ValueError("the target lmstudio needs lmstudio_model; `lms ps` lists loaded models")
        return self

    @model_validator(mode="after")
    def _a_judge_has_a_server_and_a_model(self) -> Self:
        if (self.judge_url is None) != (self.judge_model is None):
            raise ValueError("a judge needs both judge_url and judge_model; leave both out to have none")
        return self


class InstallSpec(_Section):
    """Where the GGUF goes, and what it must reach to get there."""

    enabled: bool = True
    """Whether to install at all."""
    publisher: Name = "local"
    """The folder in LM Studio's models folder."""
    model_name: Name = "temporal-unlearn"
    """The folder below that, the beginning of the file's name, and how LM Studio lists the model."""
    require: Literal["none", "minimum", "target"] = "minimum"
    """Which column of the document's table the installed file must reach on the validation sets."""
    replace: bool = False
    """Put the new model in the place of another one of that name; otherwise a job whose name is taken is refused."""
    quant: Literal["first", "smallest_passing"] = "first"
    """first: convert.quant_types' first, or nothing. smallest_passing: of all types, the smallest file that passes."""


class ResourcesSpec(_Section):
    """What the job's GPU stages hold."""

    gpus: float = Field(1, ge=0, le=1024)
    """GPUs held by train and evaluate: a whole number, or a share of one (0.5); 0 works on the CPU."""
    priority: Priority = Field(0, ge=-100, le=100)
    """Who gets a free GPU first: the higher number (low is -10, normal 0, high 10), then who came first."""
    wait_minutes: float = Field(120, ge=0, le=10080)
    """How long a stage waits for GPU memory that a program outside cutoff holds, before the job fails."""

    @field_validator("gpus")
    @classmethod
    def _whole_gpus_or_a_share_of_one(cls, value: float) -> float:
        if value > 1 and value != int(value):
            raise ValueError("more than one GPU must be a whole number: 2, 3, ...")
        if 0 < value < 1 and abs(value * 100 - round(value * 100)) > 1e-9:
            raise ValueError("a share of a GPU is given in hundredths: 0.5, 0.25, 0.01, ...")
        return value


class JobSpec(_Section):
    """One job, complete: what a user asks for with every default filled in."""

    name: Name
    """The job's name begins with it."""
    base_model: str
    """A hub id, optionally with @revision, or a folder; one that begins with ./ or ../ is relative to job.yaml."""
    cutoff: datetime.date | None = None
    """The last day of what is kept; the report draws its scores by year around it."""
    dataset: DatasetSpec
    """The question sets."""
    train: TrainSpec = TrainSpec()
    """The fine-tuning recipe."""
    merge: MergeSpec = MergeSpec()
    """How the adapter is merged."""
    convert: ConvertSpec = ConvertSpec()
    """Which GGUF files are made."""
    evaluate: EvaluateSpec = EvaluateSpec()
    """Which targets are asked which questions."""
    install: InstallSpec = InstallSpec()
    """Where the GGUF goes, and what it must reach to get there."""
    resources: ResourcesSpec = ResourcesSpec()
    """What the job's GPU stages hold."""

    @field_validator("base_model")
    @classmethod
    def _base_model_is_a_folder_or_a_hub_id(cls, value: str) -> str:
        return _model_name(value)

    @model_validator(mode="after")
    def _what_is_required_is_measured(self) -> Self:
        if self.install.enabled and self.install.require != "none" and "gguf" not in self.evaluate.targets:
            raise ValueError(
                f"install.require: {self.install.require} is measured on the GGUF: "
                "add gguf to evaluate.targets, or set install.require: none"
            )
        return self

    @model_validator(mode="after")
    def _what_is_dequantized_was_quantized(self) -> Self:
        if self.merge.base == "dequantized" and self.train.quantization == "none":
            raise ValueError(
                "merge.base: dequantized is for training on packed weights: "
                "set train.quantization: 4bit or 8bit, or merge.base: original"
            )
        return self

    @property
    def base_model_is_folder(self) -> bool:
        """Whether base_model names a folder: it begins with /, ./, ../ or ~."""
        return names_folder(self.base_model)
