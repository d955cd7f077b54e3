"""The model with its adapter and optimizer: one optimizer step, one evaluation, and what to do when memory runs out."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel

from cutoff.errors import OutOfMemory
from cutoff.trainer import attention, memory
from cutoff.trainer.batches import Example, FlatBatch, RoleSequence, flatten, micro_batches, tokens_in
from cutoff.trainer.memory import MicroBatch
from cutoff.trainer.model import OOM_REMEDY, Hardware, is_out_of_memory
from cutoff.trainer.objectives import Objective, Share
from cutoff.trainer.ranks import Ranks

_MOST_GRADIENT = 1.0
"""The gradient's norm is cut to this, as transformers does by default."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """What an optimizer step came to, over all ranks."""

    loss: float
    gradient_norm: float
    """Before it was cut."""
    tokens: int
    """Trained on, prompts included."""
    losses: tuple[float, ...]
    """Of this rank's micro-batches: their shares of the loss."""

    @property
    def finite(self) -> bool:
        """Whether loss and gradient are numbers."""
        return math.isfinite(self.loss) and math.isfinite(self.gradient_norm)


class Learner:
    """Trains the adapter of a model.

    Args:
        model: The base with its adapter; only the adapter's parameters need gradients.
        on: What it is on.
        attention_name: The attention it was loaded with.
        ranks: The processes that share the work.
        on_memory: Told in words what was done about memory.
    """

    def __init__(
        self, model: PeftModel, on: Hardware, attention_name: str, ranks: Ranks, on_memory: Callable[[str], None]
    ) -> None:
        self.model = model
        self.micro_batch = MicroBatch(most_tokens=1 << 30, recompute=False)
        self._on = on
        self._attention = attention_name
        self._ranks = ranks
        self._on_memory = on_memory
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._scaler = torch.amp.GradScaler(on.device.type, enabled=on.dtype == torch.float16)
        self.new_optimizer()

    @property
    def device(self) -> torch.device:
        """What the model is on."""
        return self._on.device

    def new_optimizer(self) -> None:
        """Forgets the moments: a new stage begins."""
        fused = self._on.platform.fused_adamw
        self.optimizer = torch.optim.AdamW(self._parameters, lr=0.0, weight_decay=0.0, fused=fused)

    def fit_memory(
        self, samples: Sequence[tuple[Objective, Sequence[Example]]], longest: int, limit: float | None
    ) -> None:
        """Measures what a token costs, and chooses the micro-batch.

        Args:
            samples: For each stage its objective, and some examples to measure with.
            longest: Tokens of the longest example of all.
            limit: GiB that training may take of the device's memory; None takes what is free.
        """
        token = max(self._bytes_per_token(objective, examples) for objective, examples in samples)
        config = self.model.config
        self.micro_batch = memory.fitting(
            memory.activation_budget(limit, self._on.device),
            token,
            config.num_hidden_layers,
            config.hidden_size * self._on.dtype.itemsize,
            longest,
            self._on.device.type,
        )
        if self.micro_batch.recompute:
            self._recompute()

    def _bytes_per_token(self, objective: Objective, examples: Sequence[Example]) -> float:
        sequences = [sequence for example in examples for sequence in example]
        with memory.counting_saved() as saved:
            loss = self._loss(objective, sequences, objective.share(examples))
            kept = saved()
        del loss
        return kept / tokens_in(sequences)

    def step(self, objective: Objective, examples: Sequence[Example], learning_rate: float, seed: int) -> StepResult:
        """One optimizer step on these examples; each rank takes its share of them.

        Out of memory, it begins anew with smaller micro-batches. A loss or gradient that is no number changes
        nothing: the caller finds it in the result.

        Args:
            objective: The loss.
            examples: All of the step's, those of other ranks included.
            learning_rate: Of this step.
            seed: Of dropout.

        Raises:
            OutOfMemory: Not even one example at a time fits.
        """
        share = objective.share(examples)
        own = self._ranks.own(examples)
        while True:
            torch.manual_seed(seed + self._ranks.rank)
            losses = self._gradients(objective, own, share)
            if not self._ranks.any(losses is None):
                break
            self._smaller(own)
        self._ranks.add([parameter.grad for parameter in self._parameters], like=self._parameters)
        loss, tokens = self._ranks.sums([math.fsum(losses or ()), sum(map(tokens_in, own))])
        norm = self._apply(learning_rate, loss)
        return StepResult(loss, norm, int(tokens), tuple(losses or ()))

    def evaluate(self, objective: Objective, examples: Sequence[Example], stopping: Callable[[], bool]) -> float | None:
        """The objective's value on some examples, without dropout; None if it was stopped.

        Raises:
            OutOfMemory: Not even one example at a time fits.
        """
        share = objective.share(examples)
        own = self._ranks.own(examples)
        self.model.eval()
        try:
            while True:
                total = self._sum_of_losses(objective, own, share, stopping)
                if not self._ranks.any(total is None):
                    break
                self._smaller(own)
        finally:
            self.model.train()
        stopped, value = self._ranks.sums([float(stopping()), total or 0.0])
        return None if stopped else value

    def _sum_of_losses(
        self, objective: Objective, examples: Sequence[Example], share: Share, stopping: Callable[[], bool]
    ) -> float | None:
        total = torch.zeros((), device=self._on.device)
        with torch.no_grad(), self._noticing_exhaustion() as exhausted:
            for sequences in micro_batches(examples, self.micro_batch.most_tokens):
                if stopping():
                    break
                total += self._loss(objective, sequences, share)
        return None if exhausted() else float(total)

    def _gradients(self, objective: Objective, examples: Sequence[Example], share: Share) -> list[float] | None:
        """Adds up the gradients of a step's micro-batches; None when memory ran out."""
        self.optimizer.zero_grad(set_to_none=True)
        losses: list[torch.Tensor] = []
        with self._noticing_exhaustion() as exhausted:
            for sequences in micro_batches(examples, self.micro_batch.most_tokens):
                loss = self._loss(objective, sequences, share)
                self._scaler.scale(loss).backward()
                losses.append(loss.detach())
        return None if exhausted() else [loss.item() for loss in losses]

    def _loss(self, objective: Objective, sequences: Sequence[RoleSequence], share: Share) -> torch.Tensor:
        """A micro-batch's share of the loss."""
        batch = flatten(sequences).to(self._on.device)
        asked = [sequence for sequence in sequences if objective.needs_reference(sequence.role)]
        reference = None
        if asked:
            with torch.no_grad(), self.model.disable_adapter():
                reference = self._logits(flatten(asked).to(self._on.device))
        return objective.loss(batch, self._logits(batch), reference, share)

    def _logits(self, batch: FlatBatch) -> torch.Tensor:
        """The logits where an answer token is predicted, shape (K, vocabulary)."""
        mixed = nullcontext() if self._on.on_cpu else torch.autocast(self._on.device.type, self._on.dtype)
        with mixed:
            output: Any = self.model(
                input_ids=batch.ids,
                position_ids=batch.positions,
                logits_to_keep=batch.predicting,
                use_cache=False,
                **attention.arguments(self._attention, batch),
            )
        logits: torch.Tensor = output.logits[0]
        return logits

    def _apply(self, learning_rate: float, loss: float) -> float:
        """Lets the optimizer take the step; returns the gradient's norm."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self._scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, _MOST_GRADIENT).item()
        if self._scaler.is_enabled():
            self._scaler.step(self.optimizer)  # leaves a step out whose gradient overflowed in 16 bits
            self._scaler.update()
            return norm if math.isfinite(norm) or not math.isfinite(loss) else 0.0
        if math.isfinite(norm) and math.isfinite(loss):
            self.optimizer.step()
        return norm

    @contextmanager
    def _noticing_exhaustion(self) -> Iterator[Callable[[], bool]]:
        """Ends the block when memory runs out; yields the function that says whether it did."""
        noticed: list[str] = []
        try:
            yield lambda: bool(noticed)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            noticed.append(str(error))

    def _smaller(self, examples: Sequence[Example]) -> None:
        """Halves the micro-batch; where one example is all there is in it, recomputes activations.

        Raises:
            OutOfMemory: Neither is left.
        """
        self.optimizer.zero_grad(set_to_none=True)
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        sizes = [(len(batch), tokens_in(batch)) for batch in micro_batches(examples, self.micro_batch.most_tokens)]
        count, tokens = max(sizes, key=lambda size: size[1], default=(0, 0))
        if count > 1:
            self.micro_batch = MicroBatch(max(1, tokens // 2), self.micro_batch.recompute)
            self._on_memory(f"micro-batches of at most {tokens // 2} tokens instead of {tokens}")
        elif not self.micro_batch.recompute:
            self.micro_batch = MicroBatch(self.micro_batch.most_tokens, recompute=True)
            self._recompute()
            self._on_memory("activations recomputed in the backward pass instead of kept")
        else:
            raise OutOfMemory("training does not fit, not even one example at a time", OOM_REMEDY)

    def _recompute(self) -> None:
        self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
