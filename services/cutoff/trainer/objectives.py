"""What is minimised: the document's supervised fine-tuning, and the objectives that unlearn a true answer.

For the others than sft, L = gamma F + alpha R: F on the unlearn examples, R on the retain examples, each a mean
over those of an optimizer step (R over their answer tokens). A micro-batch contributes its share of these means,
so that the sum over micro-batches, and over ranks, is the loss of the step.

Notation: log pi(y|x) is the sum of the answer's token log-probabilities in nats, pi the model with its adapter,
ref the reference model, which is the same model with the adapter switched off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional
from trl.trainer.utils import selective_log_softmax

from cutoff.datasets import Encoded
from cutoff.spec import StageSpec
from cutoff.trainer.batches import Example, FlatBatch, Role, RoleSequence

Booleans = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model says of the sequences of one batch."""

    summed: torch.Tensor
    """log pi(y|x) of each sequence, shape (S)."""
    lengths: torch.Tensor
    """|y|: predicted tokens of each sequence, shape (S)."""


def grad_ascent(policy: Answers, _reference: Answers | None, _beta: float, _delta: float) -> torch.Tensor:
    """The mean log pi of the true answer's tokens: L_fgt of LLMU (arXiv 2310.10683, section 4). It has no bound."""
    return policy.summed / policy.lengths


def npo(policy: Answers, reference: Answers | None, beta: float, _delta: float) -> torch.Tensor:
    """-(2/beta) log sigma(-beta (log pi - log ref)) of the true answer: NPO (arXiv 2404.05868), equation 3."""
    ratio = policy.summed - _of(reference).summed
    return -2 / beta * functional.logsigmoid(-beta * ratio)


def simnpo(policy: Answers, _reference: Answers | None, beta: float, delta: float) -> torch.Tensor:
    """-(2/beta) log sigma(-(beta/|y|) log pi - beta delta): SimNPO (arXiv 2410.07163), equation 4."""
    return -2 / beta * functional.logsigmoid(beta * (-policy.summed / policy.lengths - delta))


def dpo(chosen: Answers, rejected: Answers, references: tuple[Answers, Answers], beta: float) -> torch.Tensor:
    """-log sigma(beta (log pi(w)/ref(w) - log pi(l)/ref(l))): DPO (arXiv 2305.18290), equation 7.

    Args:
        chosen: w, the refusals.
        rejected: l, the true answers of the same questions.
        references: What the reference model says of both.
        beta: How far the model may leave its reference.

    Returns:
        One value per question.
    """
    preferred, avoided = references
    margin = (chosen.summed - preferred.summed) - (rejected.summed - avoided.summed)
    return -functional.logsigmoid(beta * margin)


def kl_divergence(policy: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """KL(ref || pi) of each predicted token, shape (K): L_nor of LLMU (arXiv 2310.10683, section 4).

    Args:
        policy: Logits, shape (K, vocabulary).
        reference: The same of the reference model.
    """
    target = _wide(reference).log_softmax(-1)
    return functional.kl_div(_wide(policy).log_softmax(-1), target, reduction="none", log_target=True).sum(-1)


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a method takes where the job says nothing: open-unlearning's configurations, as of November 2026."""

    forget_weight: float = 1.0
    beta: float = 0.1
    delta: float = 0.0


DEFAULTS: Mapping[str, Defaults] = {
    "sft": Defaults(),
    "grad_ascent": Defaults(),
    "grad_diff": Defaults(),
    "npo": Defaults(beta=0.1),
    "simnpo": Defaults(forget_weight=0.125, beta=4.5),
    "dpo": Defaults(beta=0.1),
}

_FORGET: Mapping[str, Callable[[Answers, Answers | None, float, float], torch.Tensor]] = {
    "grad_ascent": grad_ascent,
    "grad_diff": grad_ascent,
    "npo": npo,
    "simnpo": simnpo,
}


@dataclass(frozen=True, slots=True)
class Share:
    """What the means of an optimizer step are taken over."""

    forget_examples: int
    """Unlearn examples."""
    retain_tokens: int
    """Answer tokens of the retain examples; for sft, of all examples."""


@dataclass(frozen=True, slots=True)
class Objective:
    """One stage's loss, every option filled in."""

    method: str
    retain_loss: str
    retain_weight: float
    forget_weight: float
    beta: float
    delta: float

    @classmethod
    def of(cls, stage: StageSpec) -> Objective:
        """The loss a stage asks for."""
        own = DEFAULTS[stage.method]
        return cls(
            method=stage.method,
            retain_loss=stage.retain_loss or "nll",
            retain_weight=1.0 if stage.retain_weight is None else stage.retain_weight,
            forget_weight=stage.forget_weight or own.forget_weight,
            beta=stage.beta or own.beta,
            delta=own.delta if stage.delta is None else stage.delta,
        )

    def uses(self, unlearn: Booleans, known: Booleans) -> Booleans:
        """Which lines of the data are trained on, as booleans.

        Args:
            unlearn: Whether each is an unlearn line, rather than a retain line.
            known: Whether its true answer is known.
        """
        if self.method == "sft":
            return np.ones_like(unlearn)
        forgotten: Booleans = unlearn & known
        return forgotten if self.method == "grad_ascent" else np.logical_or(forgotten, ~unlearn)

    def tokens(self, taught: Counts, truth: Counts, unlearn: Booleans) -> Counts:
        """How many tokens each line of the data comes to, prompts included.

        Args:
            taught: Of each line as it stands.
            truth: Of each question with its true answer; 0 where that is not known.
            unlearn: Whether each is an unlearn line.
        """
        forgotten = {"sft": taught, "dpo": taught + truth}.get(self.method, truth)
        return np.where(unlearn, forgotten, taught)

    def example(self, taught: Encoded, truth: Encoded | None) -> Example:
        """What is trained on for one line of the data; nothing where the method leaves it out.

        Args:
            taught: The line as it stands: a retain question with its answer, or an unlearn question with a refusal.
            truth: The unlearn question with its true answer.
        """
        if taught.side == "retain":
            return () if self.method == "grad_ascent" else (RoleSequence(taught, Role.RETAIN),)
        refusal = RoleSequence(taught, Role.REFUSAL)
        if self.method == "sft":
            return (refusal,)
        if truth is None or not truth.ids:
            return ()
        forgotten = RoleSequence(truth, Role.TRUTH)
        return (refusal, forgotten) if self.method == "dpo" else (forgotten,)

    def needs_reference(self, role: Role) -> bool:
        """Whether the loss asks the reference model about sequences of a role."""
        if role is Role.RETAIN:
            return self.method not in ("sft", "grad_ascent") and self.retain_loss == "kl"
        return self.method in ("npo", "dpo")

    def share(self, examples: Iterable[Example]) -> Share:
        """What the means over these examples, an optimizer step's, are taken over."""
        retain = forget = 0
        for example in examples:
            if self.method == "sft" or example[0].role is Role.RETAIN:
                retain += sum(sequence.answer_length for sequence in example)
            else:
                forget += 1
        return Share(forget, retain)

    def loss(
        self, batch: FlatBatch, policy: torch.Tensor, reference: torch.Tensor | None, share: Share
    ) -> torch.Tensor:
        """A micro-batch's contribution to the step's loss.

        Args:
            batch: The micro-batch.
            policy: The model's logits, shape (K, vocabulary).
            reference: The reference model's, shape (K', vocabulary), of the sequences that need one, in their order.
            share: What the step's means are taken over.
        """
        tokens = log_probabilities(policy, batch.targets)
        if self.method == "sft":
            return -tokens.sum() / share.retain_tokens
        total = tokens.new_zeros(())
        retained = batch.roles[batch.owners] == Role.RETAIN
        asked = self._asked(batch)
        if retained.any():
            of_retain = self._retain(tokens, policy, reference, retained, asked)
            total = total + self.retain_weight * of_retain.sum() / share.retain_tokens
        if (batch.roles != Role.RETAIN).any():
            forget = self._forget(batch, tokens, reference, asked)
            total = total + self.forget_weight * forget.sum() / share.forget_examples
        return total

    def _asked(self, batch: FlatBatch) -> torch.Tensor:
        """Which of the K predicted tokens the reference logits are about."""
        asked = torch.zeros_like(batch.owners, dtype=torch.bool)
        for role in Role:
            if self.needs_reference(role):
                asked |= batch.roles[batch.owners] == role
        return asked

    def _retain(
        self,
        tokens: torch.Tensor,
        policy: torch.Tensor,
        reference: torch.Tensor | None,
        retained: torch.Tensor,
        asked: torch.Tensor,
    ) -> torch.Tensor:
        """R of each answer token of the retain examples."""
        if reference is None or not self.needs_reference(Role.RETAIN):
            return -tokens[retained]
        return kl_divergence(policy[retained], reference[retained[asked]])

    def _forget(
        self, batch: FlatBatch, tokens: torch.Tensor, reference: torch.Tensor | None, asked: torch.Tensor
    ) -> torch.Tensor:
        """F of each unlearn example."""
        policy = Answers(batch.sums(tokens), batch.answer_lengths())
        said: Answers | None = None
        if reference is not None:
            about = torch.zeros_like(tokens)
            about[asked] = log_probabilities(reference, batch.targets[asked])
            said = Answers(batch.sums(about), policy.lengths)
        truth, refusal = (batch.roles == role for role in (Role.TRUTH, Role.REFUSAL))
        if self.method == "dpo":
            references = (_only(_of(said), refusal), _only(_of(said), truth))
            return dpo(_only(policy, refusal), _only(policy, truth), references, self.beta)
        compared = None if said is None else _only(said, truth)
        return _FORGET[self.method](_only(policy, truth), compared, self.beta, self.delta)


def log_probabilities(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Takes log pi of each predicted token, in float32 (float64 stays), shape (K).

    Args:
        logits: Shape (K, vocabulary).
        targets: Token ids, shape (K).
    """
    chosen: torch.Tensor = selective_log_softmax(_wide(logits)[None], targets[None])[0]
    return chosen


def _wide(logits: torch.Tensor) -> torch.Tensor:
    """At least float32: a softmax over a large vocabulary in 16 bits loses what a loss is made of."""
    return logits if logits.dtype == torch.float64 else logits.float()


def _only(answers: Answers, which: torch.Tensor) -> Answers:
    return Answers(answers.summed[which], answers.lengths[which])


def _of(reference: Answers | None) -> Answers:
    assert reference is not None, "the reference model was not asked"
    return reference
