"""A Hugging Face model that answers greedily, many questions at a time; `hf_model` loads one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel

from cutoff.datasets import PromptTemplate
from cutoff.errors import OutOfMemory, Refused
from cutoff.evaluator.greedy import can_decode, decode
from cutoff.evaluator.likelihood import score_answers
from cutoff.evaluator.memorization import Scored
from cutoff.evaluator.targets import BATCH, Chat, Reply


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
        yield from self._answered(self._template.ids(self._template.prompts(questions)), max_tokens)

    def obstacle(self, chat: Chat) -> str:
        """Why the model's chat template cannot render a chat of this kind; empty when it can."""
        try:
            self._template.chat(chat.messages, chat.begun)
        except Refused as error:
            return error.message
        return ""

    def replies(self, chats: Sequence[Chat], max_tokens: int) -> Iterator[tuple[int, Reply]]:
        """As `answers`, to chats; the beginning of an answer is the end of the prompt, as in training.

        Raises:
            OutOfMemory: Not even one chat fits.
            Refused: The template cannot render one.
        """
        prompts = [self._template.chat(chat.messages, chat.begun) for chat in chats]
        yield from self._answered(self._template.ids(prompts), max_tokens)

    def score_answers(self, pairs: Sequence[tuple[str, str]]) -> list[Scored]:
        """How likely the model finds given answers, see `likelihood.score_answers`."""
        return score_answers(self._model, self._template, pairs)

    def _answered(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> Iterator[tuple[int, Reply]]:
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


def _stop_ids(model: PreTrainedModel, template: PromptTemplate) -> list[int]:
    """The template's end-of-turn token, and every end token the model's own configuration names."""
    configured: Any = model.generation_config.eos_token_id if model.generation_config else None
    named = configured if isinstance(configured, list) else [configured]
    return sorted({template.stop_id, *(int(token) for token in named if token is not None)})


def _pad_id(template: PromptTemplate) -> int:
    """Any id will do: padding is masked."""
    pad = template.tokenizer.pad_token_id
    return template.stop_id if pad is None else int(pad)
