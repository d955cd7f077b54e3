"""What to try when a model misses the table: the user's document's troubleshooting rows, chosen by the numbers.

Pure data and functions. The document's row "Poor Evaluation Metrics" says: train for more epochs, a higher LoRA rank,
another balance of retain and unlearn data, look at the examples; its next steps are gradient ascent and DPO.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

from cutoff.evaluator.metrics import Scores
from cutoff.spec.requirements import REQUIREMENTS, Bar

FAR = 0.10
"""A metric that misses its bar by more than this share misses it by far."""


@dataclass(frozen=True, slots=True)
class Gaps:
    """How far each metric is on the wrong side of its bar, as a share; 0 when it meets it or was not measured."""

    accuracy: float
    false_refusal: float
    unlearn: float
    leakage: float
    wrong: float
    """The share of retain questions answered wrongly: no gap, but it tells why accuracy is missed."""

    @property
    def kept(self) -> float:
        """How far the retain side is from its bars."""
        return max(self.accuracy, self.false_refusal)

    @property
    def forgotten(self) -> float:
        """How far the unlearn side is from its bars."""
        return max(self.unlearn, self.leakage)


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing to try."""

    name: str
    what: str
    """What to change, with the field and flag that change it."""
    because: str
    """Which numbers suggest it."""

    def as_dict(self) -> dict[str, str]:
        """JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Row:
    """When something is worth trying."""

    name: str
    fits: Callable[[Gaps], bool]
    what: str
    because: str
    """With {names} of the gaps, in percentage points."""


ROWS: tuple[Row, ...] = (
    Row("more_epochs", lambda gap: gap.unlearn > 0 or gap.leakage > 0,
        "train longer: train.epochs 5 (--epochs 5)",
        "too much is still answered: unlearn success misses by {unlearn}, leakage by {leakage} points"),
    Row("more_unlearn", lambda gap: gap.forgotten > 0 and gap.kept == 0,
        "shift the balance: more unlearn examples for each retain example",
        "the retain side meets its bars, the unlearn side misses by {forgotten} points"),
    Row("objective", lambda gap: gap.leakage > FAR,
        "another objective that unlearns the answers themselves: train.method npo or dpo, which need true answers, "
        "or a stage after sft (train.then)",
        "leakage misses by {leakage} points; learning to refuse covers what is known and does not remove it"),
    Row("more_retain", lambda gap: gap.false_refusal > 0,
        "shift the balance: more retain examples for each unlearn example, of the same subjects and near the cutoff",
        "too much is refused: false refusals miss by {false_refusal} points"),
    Row("gentler", lambda gap: gap.accuracy > 0 and gap.wrong > gap.false_refusal,
        "train more gently: half the train.learning_rate (--learning_rate), or a retain term (train.retain_loss kl)",
        "what should be kept is answered wrongly in {wrong} of 100 questions: compare with the base model's own score"),
    Row("higher_rank", lambda gap: gap.kept > 0 and gap.forgotten > 0,
        "give the adapter more room: train.lora_r 32, train.lora_alpha 64 (--lora_r 32 --lora_alpha 64)",
        "both sides miss: keeping by {kept}, forgetting by {forgotten} points"),
    Row("examples", lambda gap: gap.kept > 0 or gap.forgotten > 0,
        "look at the misgraded and failing examples in examples.jsonl for patterns",
        "the document's advice whenever a bar is missed"),
)  # fmt: skip
"""In the order in which they are worth trying."""


def advice(measured: Scores, require: Literal["none", "minimum", "target"]) -> list[Advice]:
    """What to try to reach a column of the document's table; empty when it is reached, or nothing was measured."""
    if require == "none":
        return []
    gap = gaps(measured, require)
    points = {name: f"{100 * getattr(gap, name):.0f}" for name in _NAMES}
    return [Advice(row.name, row.what, row.because.format(**points)) for row in ROWS if row.fits(gap)]


def gaps(measured: Scores, bar: Bar) -> Gaps:
    """How far each metric is from its bar."""
    found = {}
    for row in REQUIREMENTS:
        value = getattr(measured, row.score)
        missed = value is not None and not row.met_by(value.value, bar)
        found[row.score] = max(abs(value.value - row.limit(bar)), 1e-9) if missed else 0.0
    wrong = 0.0
    if measured.retain_correct and measured.retain_refused:
        wrong = 1 - measured.retain_correct.value - measured.retain_refused.value
    return Gaps(
        accuracy=found["retain_correct"],
        false_refusal=found["retain_refused"],
        unlearn=found["unlearn_refused"],
        leakage=found["unlearn_leaked"],
        wrong=wrong,
    )


_NAMES = ("accuracy", "false_refusal", "unlearn", "leakage", "wrong", "kept", "forgotten")
