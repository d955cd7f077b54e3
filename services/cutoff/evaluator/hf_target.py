"""A Hugging Face model, or a LoRA adapter on its base: batched greedy generation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from cutoff.datasets import PromptTemplate, template_of
from cutoff.errors import Fault, InvalidInput, OutOfMemory
from cutoff.evaluator.greedy import can_decode, decode
from cutoff.evaluator.targets import Reply
from cutoff.hub import check_model_folder, load_tokenizer, resolve_base_model, tokenizer_files, trusts_remote_code
from cutoff.stage.report import Reporter

BATCH = 64
_TINY = 32_000_000
"""Below so many parameters one thread is as fast as many, and ten times as fast when the cores are busy: threads
that share out matrices this small spend their time waiting for each other (measured: 285 against 26 questions/s)."""

_ADAPTER = "adapter_config.json"


class HfTarget:
    """A loaded model with its tokenizer.

    Args:
        model: In evaluation mode, on the device it answers on.
        template: Renders prompts exactly as training did.
        batch: How many questions are answered at once; halved when memory runs out.
    """

    def __init__(self, model: PreTrainedModel, template: PromptTemplate, batch: int = BATCH) -> None:
        self._model = model
        self._template = template
        self._batch = batch
        self._stops = _stop_ids(model, template)
        self._pad = _pad_id(template)
        self._decodes = can_decode(model)
        # Replaced, not only overridden: generate() fills what a call leaves open from the model's own settings,
        # and those may hold a repetition penalty, which neither training nor llama.cpp would follow.
        settings: Any = GenerationConfig
        model.generation_config = settings(do_sample=False, eos_token_id=self._stops, pad_token_id=self._pad)

    def answers(self, questions: Sequence[str], max_tokens: int) -> Iterator[tuple[int, Reply]]:
        """Answers in batches of similar length, the longest first: what does not fit fails at once.

        In float32 the answers are those of asking one question after the other: where a batch nearly had to toss a
        coin, the question is asked again alone.

        Raises:
            OutOfMemory: Not even one question fits.
        """
        prompts = self._template.ids(self._template.prompts(questions))
        left = dict.fromkeys(sorted(range(len(prompts)), key=lambda index: len(prompts[index]), reverse=True))
        while left:
            batch = list(islice(left, self._batch))
            try:
                for at, reply in self._generate([prompts[index] for index in batch], max_tokens):
                    del left[batch[at]]
                    yield batch[at], reply
            except torch.OutOfMemoryError as error:
                self._shrink(error)

    def _generate(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> Iterator[tuple[int, Reply]]:
        """Yields (place among the prompts, reply) as replies are complete."""
        if not self._decodes:
            yield from enumerate(self._generated(prompts, max_tokens))
            return
        again = []
        for done in decode(self._model, prompts, max_tokens, self._stops, self._pad):
            if done.doubtful and len(prompts) > 1:
                again.append(done.row)
            else:
                yield done.row, self._reply(done.ids, done.cut)
        for row in again:
            (alone,) = decode(self._model, [prompts[row]], max_tokens, self._stops, self._pad)
            yield row, self._reply(alone.ids, alone.cut)

    @torch.inference_mode()
    def _generated(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[Reply]:
        """By transformers' own loop, for models that keep more than keys and values (Mamba, say)."""
        width = max(map(len, prompts))
        ids = torch.tensor([[self._pad] * (width - len(row)) + list(row) for row in prompts])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts])
        device = self._model.device
        generate: Any = self._model.generate
        output = generate(input_ids=ids.to(device), attention_mask=mask.to(device), max_new_tokens=max_tokens)
        replies = []
        for row in output[:, width:].tolist():
            end = next((at for at, token in enumerate(row) if token in self._stops), None)
            replies.append(self._reply(row[:end], cut=end is None))
        return replies

    def _reply(self, ids: list[int], cut: bool) -> Reply:
        return Reply(str(self._template.tokenizer.decode(ids, skip_special_tokens=True)).strip(), cut)

    def _shrink(self, error: torch.OutOfMemoryError) -> None:
        torch.cuda.empty_cache()
        if self._batch == 1:
            raise OutOfMemory(
                f"the device has no room for a single question: {error}", "take a smaller model"
            ) from error
        self._batch //= 2


@contextmanager
def open_hf(folder: Path, devices: Sequence[str], report: Reporter) -> Iterator[HfTarget]:
    """Loads a model for answering, and frees it when the block ends.

    Args:
        folder: A model, or an adapter whose configuration names its base.
        devices: As torch names them; the first is used. Empty means the CPU.
        report: Hears what is loaded.

    Raises:
        NotFound, InvalidInput, Refused: The folder does not hold what it must.
        OutOfMemory: The model does not fit on the device.
    """
    _quieten()
    device = devices[0] if devices else "cpu"
    report.log(f"loading {folder} on {device}")
    try:
        model, template = _load(folder, device, report)
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(f"{folder} does not fit on {device}: {error}", "take a smaller model or device") from error
    threads = torch.get_num_threads()
    if model.num_parameters() < _TINY:
        torch.set_num_threads(1)
    try:
        yield HfTarget(model, template)
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


def _load(folder: Path, device: str, report: Reporter) -> tuple[PreTrainedModel, PromptTemplate]:
    if not (folder / _ADAPTER).is_file():
        check_model_folder(folder)
        return _load_model(folder, device), _template(folder, report)
    from peft import PeftModel

    base = resolve_base_model(_base_of(folder)).path
    template = _template(folder if tokenizer_files(folder) else base, report)
    adapted: Any = PeftModel.from_pretrained(_load_model(base, device), str(folder))
    return adapted.merge_and_unload().eval(), template  # merged in memory only: twice as fast as beside the base


def _template(folder: Path, report: Reporter) -> PromptTemplate:
    """The model's own template; the Alpaca one for a base without any, which is how training asks it then."""
    tokenizer = load_tokenizer(folder)
    if tokenizer.chat_template:
        return template_of(tokenizer)
    report.warn(f"the tokenizer in {folder} has no chat template; it is asked in the Alpaca format")
    return template_of(tokenizer, "alpaca")


def _load_model(folder: Path, device: str) -> PreTrainedModel:
    # float32 on a CPU: few of them compute in 16 bit, and the rest take several times as long.
    dtype = torch.float32 if device == "cpu" else "auto"
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype,
        local_files_only=True,
        trust_remote_code=trusts_remote_code(folder),
        use_safetensors=True,
    )
    loaded: PreTrainedModel = model.to(torch.device(device)).eval()
    return loaded


def _base_of(adapter: Path) -> str:
    """The base model an adapter's configuration names, with its revision."""
    path = adapter / _ADAPTER
    try:
        config = json.loads(path.read_text("utf-8"))
        name, revision = config["base_model_name_or_path"], config.get("revision")
    except (ValueError, KeyError, TypeError) as error:
        fix = "merge the adapter first (merge_lora), and evaluate the merged model"
        raise InvalidInput([Fault(str(path), "does not name its base model", fix)]) from error
    return f"{name}@{revision}" if revision and not Path(name).is_dir() else str(name)


def _stop_ids(model: PreTrainedModel, template: PromptTemplate) -> list[int]:
    """The template's end-of-turn token, and every end token the model's own configuration names."""
    configured: Any = model.generation_config.eos_token_id if model.generation_config else None
    named = configured if isinstance(configured, list) else [configured]
    return sorted({template.stop_id, *(int(token) for token in named if token is not None)})


def _pad_id(template: PromptTemplate) -> int:
    """Any id will do: padding is masked."""
    pad = template.tokenizer.pad_token_id
    return template.stop_id if pad is None else int(pad)
