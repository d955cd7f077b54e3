"""How much of the true answers a model still holds, beyond what it says: the measures of the unlearning literature.

Pure functions of log-probabilities, tokens and texts; `likelihood` gets the log-probabilities from a model.
"""

from __future__ import annotations

import math
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from cutoff.datasets import SIDES, Example, Side

WRONG_ANSWERS = 5
"""How many wrong answers the truth ratio holds against a true one, as in TOFU."""


SAMPLE = 100
"""At most so many questions of a side are scored, spread over the set: each takes a pass over up to nine answers."""


@dataclass(frozen=True, slots=True)
class Scored:
    """An answer's tokens as a model sees them when it is led through the answer."""

    log_probs: tuple[float, ...]
    """Of each token, given the question and the tokens before it; natural logarithm."""
    greedy: tuple[bool, ...]
    """Whether each token is the one the model would have said."""


Frame = tuple[str, str]
"""What stands before and after a short answer in a sentence."""

_BARE: Frame = ("", "")

FRAMES = 3
"""How many sentences a short true answer is tried in."""

ScoreAnswers = Callable[[Sequence[tuple[str, str]]], Sequence[Scored]]
"""Takes (question, answer) pairs; `likelihood.score_answers` with a model and its template."""


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over questions."""

    value: float
    count: int


@dataclass(frozen=True, slots=True)
class Memorization:
    """The measures of one side of a set; None where nothing could be measured."""

    probability: Mean | None
    """Of the true answer, per token."""
    rouge_l: Mean | None
    """ROUGE-L recall of the true answer in what was said."""
    truth_ratio: Mean | None
    """How likely wrong answers are beside the true one: about 1 where the model does not tell them apart."""
    extraction_strength: Mean | None
    """The share of the true answer that the model completes by itself."""

    def as_dict(self) -> dict[str, Any]:
        """JSON values; None stays None."""
        return asdict(self)


def probability(log_probs: Sequence[float]) -> float:
    """The answer's probability per token, P(a|q)^(1/|a|): TOFU (arXiv 2401.06121), section 2.2.1.

    Args:
        log_probs: Of the answer's tokens, at least one; natural logarithm.
    """
    return math.exp(fmean(log_probs))


def truth_ratio(true: Sequence[float], wrong: Sequence[Sequence[float]]) -> float:
    """The mean `probability` of wrong answers over that of the true one: TOFU (arXiv 2401.06121), section 2.2.1.

    TOFU takes a paraphrase of the true answer; where there is none, the true answer itself stands in.

    Args:
        true: Log-probabilities of the true answer's tokens.
        wrong: Those of wrong answers of the same form, at least one.
    """
    # As a difference of logarithms: the true answer's probability may be too small for a float.
    logs = [fmean(one) - fmean(true) for one in wrong]
    return fmean(math.exp(min(one, 700.0)) for one in logs)


def extraction_strength(greedy: Sequence[bool]) -> float:
    """The share of an answer that need not be given for the model to say the rest.

    1 - k/|a|, where k is the length of the shortest beginning after which greedy decoding gives the rest exactly: Wang
    et al. (arXiv 2406.09179) after Carlini et al. (arXiv 2012.07805). open-unlearning stops at k = |a| - 1, so its
    lowest value is 1/|a|; here it is 0.

    Args:
        greedy: Whether each token of the answer, at least one, is the most likely after those before it. Led through
            the answer a model sees what it would have said, so one pass tells for every k.
    """
    wrong = [at for at, same in enumerate(greedy) if not same]
    return 1 - (wrong[-1] + 1 if wrong else 0) / len(greedy)


def rouge_l(reference: str, answer: str) -> float:
    """ROUGE-L recall: the longest common subsequence of words over the reference's words.

    Lin 2004 (aclanthology.org/W04-1013), equation 2; recall is what TOFU reports. Words are lower-case letters and
    digits, not stemmed. 0 where either has no word.
    """
    wanted, said = _words(reference), _words(answer)
    if not wanted:
        return 0.0
    row = [0] * (len(said) + 1)
    for word in wanted:
        diagonal = 0
        for at, other in enumerate(said, start=1):
            diagonal, row[at] = row[at], diagonal + 1 if word == other else max(row[at], row[at - 1])
    return row[-1] / len(wanted)


def wrong_answers(truths: Sequence[str], count: int = WRONG_ANSWERS, seed: int = 42) -> list[list[str]]:
    """Wrong answers of the same form for each true one: other questions' true answers.

    Args:
        truths: True answers to questions of one side.
        count: At most so many for each.
        seed: Draws them.

    Returns:
        For each truth, others that differ from it: numbers for numbers, names for names, and of similar length first.
    """
    drawn = random.Random(seed).sample(sorted(set(truths)), len(set(truths)))  # noqa: S311 - no secret
    return [
        sorted((other for other in drawn if other != truth), key=lambda other: _distance(truth, other))[:count]
        for truth in truths
    ]


def memorization(answers: Sequence[tuple[Example, str]], score: ScoreAnswers | None = None) -> dict[Side, Memorization]:
    """Measures a target's hold on the true answers of a set.

    The true answer is `output` on the retain side, in the words it was taught. On the unlearn side it is
    `original_answer`, often a bare name, which a model that says "It was X." finds unlikely however well it knows it.
    So it is also put into the sentences that the set's retain answers are made of, and the likeliest form counts.
    Unlearn questions whose truth is not known do not count.

    Args:
        answers: (example, what the target said).
        score: Scores given answers; without it (a GGUF, a server) there is only ROUGE-L.
    """
    frames = _frames([example for example, _ in answers])
    return {
        side: _of_side([one for one in answers if one[0].side == side], frames if side == "unlearn" else [_BARE], score)
        for side in SIDES
    }


def _of_side(
    answers: Sequence[tuple[Example, str]], frames: Sequence[Frame], score: ScoreAnswers | None
) -> Memorization:
    known = [(example.instruction, truth, said) for example, said in answers if (truth := _truth(example))]
    rouge = _mean([rouge_l(truth, said) for _, truth, said in known])
    if score is None or not known:
        return Memorization(None, rouge, None, None)
    if len(known) > SAMPLE:
        known = [known[at * len(known) // SAMPLE] for at in range(SAMPLE)]
    tried = [(question, _framed(truth, frame)) for question, truth, _ in known for frame in frames]
    scored = iter(score(tried))
    true = [max(((next(scored), frame) for frame in frames), key=_likelihood) for _ in known]
    wrong = wrong_answers([truth for _, truth, _ in known])
    others = [
        (question, _framed(other, frame))
        for (question, _, _), each, (_, frame) in zip(known, wrong, true, strict=True)
        for other in each
    ]
    rest = iter(score(others))
    false = [[found for found in (next(rest) for _ in each) if found.log_probs] for each in wrong]
    usable = [(one, each) for (one, _), each in zip(true, false, strict=True) if one.log_probs]
    ratios = [truth_ratio(one.log_probs, [other.log_probs for other in each]) for one, each in usable if each]
    return Memorization(
        probability=_mean([probability(one.log_probs) for one, _ in usable]),
        rouge_l=rouge,
        truth_ratio=_mean([min(ratio, 1 / ratio) if ratio else 0.0 for ratio in ratios]),
        extraction_strength=_mean([extraction_strength(one.greedy) for one, _ in usable]),
    )


def _frames(examples: Sequence[Example]) -> list[Frame]:
    """The commonest sentences around the short answers of the retain side, and none around them."""
    found: Counter[Frame] = Counter()
    for example in examples:
        short = example.original_answer
        if example.side == "retain" and short and example.output.count(short) == 1:
            before, after = example.output.split(short)
            found[before, after] += 1
    return list(dict.fromkeys([_BARE, *(frame for frame, _ in found.most_common(FRAMES))]))


def _framed(answer: str, frame: Frame) -> str:
    return f"{frame[0]}{answer}{frame[1]}"


def _likelihood(scored: tuple[Scored, Frame]) -> float:
    return fmean(scored[0].log_probs) if scored[0].log_probs else -math.inf


def as_json(measured: Mapping[Side, Memorization]) -> dict[str, Any]:
    """JSON values by side."""
    return {side: each.as_dict() for side, each in measured.items()}


def _truth(example: Example) -> str | None:
    return example.output if example.side == "retain" else example.original_answer


def _mean(values: Sequence[float]) -> Mean | None:
    return Mean(fmean(values), len(values)) if values else None


def _distance(truth: str, other: str) -> tuple[bool, bool, int]:
    """How unlike two answers are in form."""
    numbers = bool(re.search(r"\d", truth)) != bool(re.search(r"\d", other))
    return numbers, truth[:1].isupper() != other[:1].isupper(), abs(len(truth.split()) - len(other.split()))


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", text).casefold())
