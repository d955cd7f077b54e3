"""What a reader wants to know first: did it forget, does it still know, was it installed; and if not, why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cutoff.evaluator.job_report.schema import Finding, JobVerdict, Tone
from cutoff.evaluator.result import SetShares, Share
from cutoff.spec.requirements import REQUIREMENTS

_WORST_FIRST: tuple[Tone, ...] = ("bad", "fair", "unknown", "good")
_FORGOT = ("unlearn_refused", "unlearn_leaked")
_KNOWS = ("retain_correct", "retain_refused")


@dataclass(frozen=True, slots=True)
class Installing:
    """What came of installing."""

    wanted: bool
    """install.enabled."""
    path: str
    """Where the file is; "" when it was not installed."""
    missed: Sequence[str]
    """What install.require asked for and was not reached."""
    failure: str
    """Why installing failed; "" when it did not."""


def verdict(
    target: str | None, question_set: str | None, shares: SetShares | None, installing: Installing
) -> JobVerdict:
    """The verdict on a job.

    Args:
        target: Which target is judged; None when nothing was evaluated.
        question_set: Which questions.
        shares: Its scores on them.
        installing: What came of installing.
    """
    forgot, knows, installed = _forgot(shares), _knows(shares), _installed(installing)
    counted = [forgot.tone, knows.tone, *([installed.tone] if installing.wanted else [])]
    return JobVerdict(
        tone=min(counted, key=_WORST_FIRST.index),
        headline=_headline(forgot.tone, knows.tone, installing),
        forgot=forgot,
        knows=knows,
        installed=installed,
        target=target,
        question_set=question_set,
    )


def tone_of(score: str, share: Share | None) -> Tone:
    """How a share stands to its row of the table; unknown when it has none, or was not measured."""
    row = next((row for row in REQUIREMENTS if row.score == score), None)
    if row is None or share is None:
        return "unknown"
    if row.met_by(share.value, "target"):
        return "good"
    return "fair" if row.met_by(share.value, "minimum") else "bad"


def percent(share: float) -> str:
    """A share as people read it: one decimal, none where it says nothing."""
    return f"{100 * share:.1f}".removesuffix(".0") + " %"


def _forgot(shares: SetShares | None) -> Finding:
    refused = shares.unlearn_refused if shares else None
    if shares is None or refused is None:
        return Finding(tone="unknown", short="not measured", says="No question about what came later was asked.")
    leaked = shares.unlearn_leaked or refused
    known = "said the true answer to" if shares.unlearn_forgotten else "answered"
    declined = f"Declined {refused.count} of {refused.total} questions about what came later"
    says = f"{declined}; {known} {leaked.count or 'none'}."
    return Finding(tone=_worst(shares, _FORGOT), short=f"{percent(refused.value)} declined", says=says)


def _knows(shares: SetShares | None) -> Finding:
    correct = shares.retain_correct if shares else None
    if shares is None or correct is None:
        return Finding(tone="unknown", short="not measured", says="No question about what came before was asked.")
    refused = shares.retain_refused or correct
    says = (
        f"Answered {correct.count} of {correct.total} questions about what came before correctly; "
        f"declined {refused.count or 'none'} of them."
    )
    return Finding(tone=_worst(shares, _KNOWS), short=f"{percent(correct.value)} correct", says=says)


def _installed(installing: Installing) -> Finding:
    if installing.path:
        return Finding(tone="good", short="installed", says=f"The file is {installing.path}.")
    if not installing.wanted:
        return Finding(tone="unknown", short="not asked for", says="The job was not to install it.")
    if installing.missed:
        says = "It misses what the job asks for (install.require). The job keeps its files."
        return Finding(tone="bad", short="not installed", says=says)
    why = installing.failure or "it did not come to that"
    return Finding(tone="bad", short="not installed", says=f"Installing failed: {why}.")


def _headline(forgot: Tone, knows: Tone, installing: Installing) -> str:
    told = _ENDINGS[_held(forgot), _held(knows)]
    if not installing.wanted:
        return f"{told}. It was not to be installed."
    if "unknown" in (forgot, knows):
        return f"{told}. It {'is' if installing.path else 'was not'} installed."
    if not installing.path:
        return f"{told}, so it was not installed." if installing.missed else f"{told}, but was not installed."
    if "bad" in (forgot, knows):
        return f"{told}, and is installed all the same."
    return (
        f"{told}, short of the target, and is installed." if "fair" in (forgot, knows) else f"{told}, and is installed."
    )


def _held(tone: Tone) -> bool | None:
    return None if tone == "unknown" else tone != "bad"


_ENDINGS: Mapping[tuple[bool | None, bool | None], str] = {
    (True, True): "It forgot and still knows",
    (True, False): "It forgot, but lost too much of what it should know",
    (False, True): "It still knows, but did not forget enough",
    (False, False): "It did not forget enough, and lost too much of what it should know",
    (True, None): "It forgot; what it still knows was not measured",
    (False, None): "It did not forget enough; what it still knows was not measured",
    (None, True): "It still knows; what it forgot was not measured",
    (None, None): "Nothing was measured",
    (None, False): "It lost too much of what it should know; what it forgot was not measured",
}


def _worst(shares: SetShares, scores: Sequence[str]) -> Tone:
    return min((tone_of(score, getattr(shares, score)) for score in scores), key=_WORST_FIRST.index)
