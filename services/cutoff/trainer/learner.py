"""The model with its adapter and optimizer: one optimizer step, one evaluation, and what to do when memory runs out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from peft import PeftModel

from cutoff.errors import OutOfMemory, Refused
from cutoff.trainer import attention, memory
from cutoff.trainer.batches import Example, FlatBatch, flatten, micro_batches, tokens_in
from cutoff.trainer.memory import MicroBatch
from cutoff.trainer.model import OOM_REMEDY, Hardware, is_out_of_memory
from cutoff.trainer.objectives import Objective, Share
from cutoff.trainer.ranks import Ranks

_MOST_GRADIENT = 1.0
"""The gradient's norm is cut to this, as transformers does by default."""
_MOST_OVERFLOWS = 25
"""In a row, in float16: the scale has been halved so often by then that it is not the scale."""


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
        attention_name: The attention it was loaded with; None takes sequences one by one, with the model's own.
        ranks: The processes that share the work.
        on_memory: Told in words what was done about memory.
    """

    def __init__(
        self, model: PeftModel, on: Hardware, attention_name: str | None, ranks: Ranks, on_memory: Callable[[str], None]
    ) -> None:
        self.model = model
        self.micro_batch = MicroBatch(most_tokens=1 << 30, recompute=False)
        self._on = on
        self._attention = attention_name
        self._ranks = ranks
        self._on_memory = on_memory
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._scaler = torch.amp.GradScaler(on.device.type, enabled=on.dtype == torch.float16)
        self._overflows = 0
        self._too_large: Sequence[Example] = ()
        """The micro-batch that memory ran out with."""
        self.new_optimizer()

    @property
    def device(self) -> torch.device:
        """What the model is on."""
        return self._on.device

    @property
    def loss_scale(self) -> float | None:
        """What losses are multiplied with in float16, so that gradients do not vanish; None in other types."""
        return self._scaler.get_scale() if self._scaler.is_enabled() else None

    @loss_scale.setter
    def loss_scale(self, scale: float | None) -> None:
        if scale is not None:
            self._scaler = torch.amp.GradScaler(self._on.device.type, init_scale=scale)

    def new_optimizer(self) -> None:
        """Forgets the moments: a new stage begins."""
        fused = self._on.platform.fused_adamw
        self.optimizer = torch.optim.AdamW(self._parameters, lr=0.0, weight_decay=0.0, fused=fused)

    def fit_memory(self, samples: Sequence[tuple[Objective, Example]], longest: int, limit: float | None) -> None:
        """Measures what a token costs, and chooses the micro-batch.

        Args:
            samples: For each stage its objective, and its longest example.
            longest: Tokens of the longest example of all.
            limit: GiB that training may take of the device's memory; None takes what is free.

        Raises:
            Refused: Not even one example at a time fits into the limit.
        """
        costs = [self._bytes_per_token(objective, example) for objective, example in samples]
        known = [cost for cost in costs if cost is not None]
        if len(known) < len(costs):  # not even one example was measured without recomputing
            self.use(MicroBatch(1, recompute=True))
            return
        config, parameters = self.model.config, sum(parameter.numel() for parameter in self._parameters)
        budget = memory.activation_budget(limit, self._on.device) - memory.BYTES_PER_PARAMETER * parameters
        layers, layer_input = config.num_hidden_layers, config.hidden_size * self._on.dtype.itemsize
        least = memory.least(max(known), layers, layer_input, longest)
        if limit is not None and budget < least:
            needed = limit + (least - budget) / memory.GIB / memory.SHARE_OF_LIMIT
            raise Refused(
                f"memory_budget_gib is {limit:g}, and training takes {needed:.2f} GiB with one example at a time",
                f"give at least {math.ceil(needed * 10) / 10:g}, or none to use what is free",
            )
        self.use(memory.fitting(budget, max(known), layers, layer_input, longest, self._on.device.type))

    def use(self, micro_batch: MicroBatch) -> None:
        """Computes with these micro-batches from now on."""
        if micro_batch.recompute and not self.micro_batch.recompute:
            self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self.micro_batch = micro_batch

    def _bytes_per_token(self, objective: Objective, example: Example) -> float | None:
        """What autograd keeps for an example, per token; None when memory ran out."""
        kept = 0
        with self._noticing_exhaustion([example]) as exhausted, memory.counting_saved(self.model) as saved:
            loss = self._loss(objective, [example], objective.share([example]))
            kept = saved()
            del loss
        return None if exhausted() else kept / tokens_in(example)

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
            self._smaller(exhausted=losses is None)
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
                self._smaller(exhausted=total is None)
        finally:
            self.model.train()
        stopped, value = self._ranks.sums([float(stopping()), total or 0.0])
        return None if stopped else value

    def _sum_of_losses(
        self, objective: Objective, examples: Sequence[Example], share: Share, stopping: Callable[[], bool]
    ) -> float | None:
        total = torch.zeros((), device=self._on.device)
        exhausted = False
        with torch.no_grad():
            for batch in micro_batches(examples, self.micro_batch.most_tokens):
                if stopping() or exhausted:
                    break
                with self._noticing_exhaustion(batch) as noticed:
                    total += self._loss(objective, batch, share)
                exhausted = noticed()
        return None if exhausted else float(total)

    def _gradients(self, objective: Objective, examples: Sequence[Example], share: Share) -> list[float] | None:
        """Adds up the gradients of a step's micro-batches; None when memory ran out."""
        self.optimizer.zero_grad(set_to_none=True)
        losses: list[torch.Tensor] = []
        for batch in micro_batches(examples, self.micro_batch.most_tokens):
            with self._noticing_exhaustion(batch) as exhausted:
                loss = self._loss(objective, batch, share)
                self._scaler.scale(loss).backward()
                losses.append(loss.detach())
            if exhausted():
                return None
        return [loss.item() for loss in losses]

    def _loss(self, objective: Objective, examples: Sequence[Example], share: Share) -> torch.Tensor:
        """A micro-batch's share of the loss."""
        sequences = [sequence for example in examples for sequence in example]
        batch = flatten(sequences).to(self._on.device)
        asked = [sequence for sequence in sequences if objective.needs_reference(sequence.role)]
        reference = None
        if asked:
            with torch.no_grad(), self.model.disable_adapter():
                reference = self._logits(flatten(asked).to(self._on.device))
        return objective.loss(batch, self._logits(batch), reference, share)

    def _logits(self, batch: FlatBatch) -> torch.Tensor:
        """The logits where an answer token is predicted, shape (K, vocabulary)."""
        if self._attention is not None:
            extra = attention.arguments(self._attention, batch)
            return self._forward(batch.ids, batch.positions, batch.predicting, **extra)
        parts = []
        for begin, end in pairwise(batch.starts.tolist()):
            own = batch.predicting[(batch.predicting >= begin) & (batch.predicting < end)] - begin
            parts.append(self._forward(batch.ids[:, begin:end], batch.positions[:, begin:end], own))
        return torch.cat(parts)

    def _forward(
        self, ids: torch.Tensor, positions: torch.Tensor, predicting: torch.Tensor, **extra: Any
    ) -> torch.Tensor:
        mixed = nullcontext() if self._on.on_cpu else torch.autocast(self._on.device.type, self._on.dtype)
        with mixed:
            output: Any = self.model(
                input_ids=ids, position_ids=positions, logits_to_keep=predicting, use_cache=False, **extra
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
            self._overflows = 0 if math.isfinite(norm) else self._overflows + 1
            forgiven = self._overflows and self._overflows < _MOST_OVERFLOWS and math.isfinite(loss)
            return 0.0 if forgiven else norm
        if math.isfinite(norm) and math.isfinite(loss):
            self.optimizer.step()
        return norm

    @contextmanager
    def _noticing_exhaustion(self, examples: Sequence[Example]) -> Iterator[Callable[[], bool]]:
        """Ends the block when memory runs out with these; yields the function that says whether it did."""
        noticed: list[str] = []
        try:
            yield lambda: bool(noticed)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            noticed.append(str(error))
            self._too_large = examples

    def _smaller(self, exhausted: bool) -> None:
        """Halves the micro-batch that did not fit; where it was one example, recomputes activations.

        A rank that had room does nothing: the step is repeated with what it has.

        Raises:
            OutOfMemory: Neither is left, on this rank.
        """
        self.optimizer.zero_grad(set_to_none=True)
        memory.release()
        if not exhausted:
            return
        tokens = sum(map(tokens_in, self._too_large))
        if len(self._too_large) > 1:
            self.use(replace(self.micro_batch, most_tokens=max(1, tokens // 2)))
            self._on_memory(f"micro-batches of at most {tokens // 2} tokens instead of {tokens}")
        elif not self.micro_batch.recompute:
            self.use(replace(self.micro_batch, recompute=True))
            self._on_memory("activations recomputed in the backward pass instead of kept")
        else:
            raise OutOfMemory("training does not fit, not even one example at a time", OOM_REMEDY)
