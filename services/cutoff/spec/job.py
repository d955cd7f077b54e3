"""The fields of a job, their defaults (the user's document) and what each of them may be."""

from __future__ import annotations

import datetime
import re
from typing import Annotated, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

QuantType = Literal["f16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_k_s", "q3_k_m"]
"""The quantization types of the user's document, smallest loss first."""

Target = Literal["base", "merged", "gguf", "lmstudio"]
"""What can be evaluated; gguf means every quantization type of the job."""

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$")]
"""A name that becomes part of a path: it cannot leave its folder."""

_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?$")


T = TypeVar("T")


def _not_empty(values: tuple[T, ...]) -> tuple[T, ...]:
    """An after-validator: pydantic's own min_length repeats itself for each item that is wrong."""
    if not values:
        raise ValueError("should have at least 1 item")
    return values


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class DatasetSpec(_Section):
    """JSONL files, relative to the datasets root: the four, or one mixed `dev` file."""

    retain_train: str | None = None
    retain_val: str | None = None
    unlearn_train: str | None = None
    unlearn_val: str | None = None
    dev: str | None = None
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


class TrainSpec(_Section):
    """The fine-tuning recipe. Defaults are the user's document's."""

    method: Literal["sft"] = "sft"
    epochs: float = Field(3, gt=0, le=1000)
    batch_size: int = Field(4, ge=1, le=4096)
    gradient_accumulation_steps: int = Field(4, ge=1, le=4096)
    learning_rate: float = Field(2e-4, gt=0, le=1)
    warmup_ratio: float = Field(0.1, ge=0, le=1)
    """The share of all optimizer steps over which the learning rate rises."""
    max_seq_length: int = Field(512, ge=8, le=1_048_576)
    """In tokens, prompt and answer together."""
    lora_r: int = Field(16, ge=1, le=1024)
    lora_alpha: int = Field(32, ge=1, le=8192)
    lora_dropout: float = Field(0.05, ge=0, lt=1)
    quantization: Literal["none", "4bit", "8bit"] = "none"
    prompt_format: Literal["chat", "alpaca"] = "chat"
    eval_steps: int = Field(100, ge=1)
    """Optimizer steps between evaluations; shrunk to fit a short run."""
    save_steps: int = Field(500, ge=1)
    """Optimizer steps between checkpoints; shrunk to fit a short run."""
    seed: int = Field(42, ge=0, le=2**32 - 1)
    report_to: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    resume_from_checkpoint: str | None = None
    """A checkpoint folder, relative to the artifacts root."""


class MergeSpec(_Section):
    """How the adapter is merged."""

    dtype: Literal["float16", "bfloat16", "float32"] = "bfloat16"
    verify: bool = True
    base: Literal["original"] = "original"


class ConvertSpec(_Section):
    """Which GGUF files are made. The first quantization type is the one that is installed."""

    quant_types: Annotated[tuple[QuantType, ...], AfterValidator(_not_empty)] = ("q4_k_m",)
    llama_cpp_path: str | None = None
    """A llama.cpp of the user's own, used as it is; by default the pinned build."""


class EvaluateSpec(_Section):
    """Which targets are asked which questions."""

    targets: Annotated[tuple[Target, ...], AfterValidator(_not_empty)] = ("base", "merged", "gguf")
    max_tokens: int = Field(256, ge=1, le=32_768)
    limit: int = Field(500, ge=1)
    """At most this many questions a side (retain, unlearn) and set, drawn with the seed."""
    test_file: str | None = None
    """Questions asked beside the validation sets, relative to the datasets root."""
    attacks: tuple[str, ...] = Field((), max_length=0)
    verbose: bool = False
    """Log each example with its grade."""
    lmstudio_url: str = "http://localhost:1234/v1"
    lmstudio_model: str | None = None

    @model_validator(mode="after")
    def _lmstudio_needs_a_model(self) -> Self:
        if "lmstudio" in self.targets and not self.lmstudio_model:
            raise ValueError("the target lmstudio needs lmstudio_model; `lms ps` lists loaded models")
        return self


class InstallSpec(_Section):
    """Where the GGUF goes, and what it must reach to get there."""

    enabled: bool = True
    publisher: Name = "local"
    model_name: Name = "temporal-unlearn"
    require: Literal["none", "minimum", "target"] = "minimum"
    """Which column of the document's table the installed file must reach on the validation sets."""


class ResourcesSpec(_Section):
    """What the job's GPU stages hold."""

    gpus: float = Field(1, ge=0, le=1024)


class JobSpec(_Section):
    """One job, complete: what a user asks for with every default filled in."""

    name: Name
    base_model: str
    """A hub id, optionally with @revision, or a folder."""
    cutoff: datetime.date | None = None
    """The last day of what is kept."""
    dataset: DatasetSpec
    train: TrainSpec = TrainSpec()
    merge: MergeSpec = MergeSpec()
    convert: ConvertSpec = ConvertSpec()
    evaluate: EvaluateSpec = EvaluateSpec()
    install: InstallSpec = InstallSpec()
    resources: ResourcesSpec = ResourcesSpec()

    @model_validator(mode="after")
    def _base_model_is_a_folder_or_a_hub_id(self) -> Self:
        if not self.base_model_is_folder and not _HUB_ID.match(self.base_model):
            raise ValueError(
                f"base_model {self.base_model!r} is neither a hub id (owner/name, optionally @revision) "
                "nor a folder (begin a folder with / or ./)"
            )
        return self

    @model_validator(mode="after")
    def _what_is_required_is_measured(self) -> Self:
        if self.install.enabled and self.install.require != "none" and "gguf" not in self.evaluate.targets:
            raise ValueError(
                f"install.require: {self.install.require} is measured on the GGUF: "
                "add gguf to evaluate.targets, or set install.require: none"
            )
        return self

    @property
    def base_model_is_folder(self) -> bool:
        """Whether base_model names a folder: it begins with /, ./, ../ or ~."""
        return self.base_model.startswith(("/", "./", "../", "~"))
