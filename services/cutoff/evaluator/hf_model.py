"""Loads a Hugging Face model for answering: a whole one, or a LoRA adapter beside its base."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging
from transformers.utils.import_utils import is_bitsandbytes_available

from cutoff.datasets import PromptTemplate, template_of
from cutoff.errors import Fault, InvalidInput, OutOfMemory, Refused
from cutoff.evaluator.hf_target import HfTarget
from cutoff.evaluator.targets import BATCH
from cutoff.hub import (
    bits_and_bytes,
    check_model_folder,
    load_causal_lm,
    load_tokenizer,
    resolve_base_model,
    tokenizer_files,
)
from cutoff.hub.quantized_base import Quantization
from cutoff.stage.report import Reporter

_TINY = 32_000_000
"""Below so many parameters one thread is as fast as many, and ten times as fast when the cores are busy: threads
that share out matrices this small spend their time waiting for each other (measured: 285 against 26 questions/s)."""

_ADAPTER = "adapter_config.json"


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds a LoRA adapter and no whole model."""
    return (folder / _ADAPTER).is_file()


@contextmanager
def open_hf(folder: Path, devices: Sequence[str], report: Reporter, batch: int = BATCH) -> Iterator[HfTarget]:
    """Loads a model, and frees it when the block ends.

    Args:
        folder: The model.
        devices: As torch names them; the first is used. Empty means the CPU.
        report: Hears what is loaded.
        batch: How many questions are answered at once, at most.

    Raises:
        NotFound, InvalidInput, Refused: The folder does not hold what it must.
        OutOfMemory: The model does not fit on the device.
    """

    def load(device: str) -> tuple[PreTrainedModel, PromptTemplate]:
        check_model_folder(folder)
        return _load_model(folder, device), _template(folder, report)

    with _opened(str(folder), load, devices, report, batch) as target:
        yield target


@contextmanager
def open_adapter(
    base: Path,
    adapter: Path,
    devices: Sequence[str],
    report: Reporter,
    quantization: Quantization = "none",
    batch: int = BATCH,
) -> Iterator[HfTarget]:
    """Loads an adapter beside its base, as it was trained: nothing is merged.

    Args:
        base: The base model's folder.
        adapter: The adapter's.
        devices: As for `open_hf`.
        report: Hears what is loaded.
        quantization: How the base was held while the adapter was trained.
        batch: As for `open_hf`.

    Raises:
        NotFound, InvalidInput, Refused, OutOfMemory: As `open_hf`.
    """

    def load(device: str) -> tuple[PreTrainedModel, PromptTemplate]:
        from peft import PeftModel

        check_model_folder(base)
        if quantization != "none" and not is_bitsandbytes_available():
            raise Refused(
                f"{adapter} was trained on a base packed to {quantization}, which needs bitsandbytes",
                "pip install bitsandbytes where the evaluator runs, or evaluate the merged model and not the adapter",
            )
        template = _template(adapter if tokenizer_files(adapter) else base, report)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by names that are going out of use
            adapted: Any = PeftModel.from_pretrained(_load_model(base, device, quantization), str(adapter))
        return adapted.eval(), template

    packed = "" if quantization == "none" else f", packed to {quantization}"
    with _opened(f"{adapter} on {base}{packed}", load, devices, report, batch) as target:
        yield target


def base_of(adapter: Path) -> Path:
    """The folder of the base model an adapter's configuration names, fetched if need be.

    Raises:
        InvalidInput: It names none.
        CutoffError: As `resolve_base_model`.
    """
    path = adapter / _ADAPTER
    try:
        config = json.loads(path.read_text("utf-8"))
        name, revision = config["base_model_name_or_path"], config.get("revision")
    except (ValueError, KeyError, TypeError) as error:
        fix = "merge the adapter first (merge_lora), and evaluate the merged model"
        raise InvalidInput([Fault(str(path), "does not name its base model", fix)]) from error
    return resolve_base_model(f"{name}@{revision}" if revision and not Path(name).is_dir() else str(name)).path


@contextmanager
def _opened(
    what: str,
    load: Callable[[str], tuple[PreTrainedModel, PromptTemplate]],
    devices: Sequence[str],
    report: Reporter,
    batch: int,
) -> Iterator[HfTarget]:
    _quieten()
    device = devices[0] if devices else "cpu"
    report.log(f"loading {what} on {device}")
    try:
        model, template = load(device)
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(f"{what} does not fit on {device}: {error}", "take a smaller model or device") from error
    threads = torch.get_num_threads()
    if model.num_parameters() < _TINY:
        torch.set_num_threads(1)
    try:
        yield HfTarget(model, template, batch)
    finally:
        torch.set_num_threads(threads)
        del model
        if device != "cpu":
            torch.cuda.empty_cache()


def _quieten() -> None:
    """Keeps transformers' warnings and bars out of the run's own report."""
    silences: tuple[Any, ...] = (transformers_logging.set_verbosity_error, transformers_logging.disable_progress_bar)
    for silence in silences:
        silence()


def _template(folder: Path, report: Reporter) -> PromptTemplate:
    """The model's own template; the Alpaca one for a base without any, which is how training asks it then."""
    tokenizer = load_tokenizer(folder)
    if tokenizer.chat_template:
        return template_of(tokenizer)
    report.warn(f"the tokenizer in {folder} has no chat template; it is asked in the Alpaca format")
    return template_of(tokenizer, "alpaca")


def _load_model(folder: Path, device: str, quantization: Quantization = "none") -> PreTrainedModel:
    # float32 on a CPU: few of them compute in 16 bit, and the rest take several times as long.
    dtype: Any = torch.float32 if device == "cpu" else "auto"
    return load_causal_lm(folder, dtype, device, bits_and_bytes(quantization, torch.bfloat16))
