"""Each objective against its formula, computed another way: probability by probability, in float64."""

from __future__ import annotations

import math

import pytest
import torch

from cutoff.datasets import Encoded
from cutoff.spec import StageSpec
from cutoff.trainer.batches import Example, FlatBatch, Role, flatten
from cutoff.trainer.objectives import DEFAULTS, Objective

VOCABULARY = 11
METHODS = tuple(DEFAULTS)


def encoded(side: str, length: int, start: int, seed: int) -> Encoded:
    ids = torch.randint(0, VOCABULARY, (length,), generator=torch.Generator().manual_seed(seed)).tolist()
    return Encoded(ids, start, side)  # type: ignore[arg-type]


LINES = (
    (encoded("retain", 6, 3, 1), None),
    (encoded("unlearn", 7, 3, 2), encoded("unlearn", 5, 3, 3)),
    (encoded("retain", 4, 2, 4), None),
    (encoded("unlearn", 8, 4, 5), encoded("unlearn", 9, 4, 6)),
    (encoded("unlearn", 5, 2, 7), encoded("unlearn", 4, 2, 8)),
)


def objective(method: str, **options: object) -> Objective:
    return Objective.of(StageSpec.model_validate({"method": method, **options}))


def examples_of(wanted: Objective) -> list[Example]:
    return [example for example in (wanted.example(*line) for line in LINES) if example]


def logits_for(ids: list[int], seed: int) -> torch.Tensor:
    """Made-up logits that depend on the sequence only: as long as it, float64."""
    generator = torch.Generator().manual_seed(sum(ids) * 1009 + len(ids) + seed)
    return torch.randn(len(ids), VOCABULARY, generator=generator, dtype=torch.float64)


def packed(batch_sequences: list[Encoded], seed: int) -> torch.Tensor:
    return torch.cat([logits_for(row.ids, seed)[row.answer_start - 1 : -1] for row in batch_sequences])


POLICY, REFERENCE = 1, 2


def loss_of(wanted: Objective, groups: list[list[Example]]) -> float:
    """The loss of a step that was cut into these micro-batches."""
    share = wanted.share([example for group in groups for example in group])
    total = 0.0
    for group in groups:
        sequences = [sequence for example in group for sequence in example]
        batch: FlatBatch = flatten(sequences)
        asked = [sequence.encoded for sequence in sequences if wanted.needs_reference(sequence.role)]
        policy = packed([sequence.encoded for sequence in sequences], POLICY)
        total += wanted.loss(batch, policy, packed(asked, REFERENCE) if asked else None, share).item()
    return total


def log_probabilities(row: Encoded, seed: int) -> list[float]:
    """One token at a time, with the softmax written out."""
    found = []
    for place in range(row.answer_start, len(row.ids)):
        scores = logits_for(row.ids, seed)[place - 1].tolist()
        found.append(math.log(math.exp(scores[row.ids[place]]) / sum(map(math.exp, scores))))
    return found


def distribution(row: Encoded, place: int, seed: int) -> list[float]:
    scores = logits_for(row.ids, seed)[place - 1].tolist()
    return [math.exp(score) / sum(map(math.exp, scores)) for score in scores]


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


RETAINED = [taught for taught, truth in LINES if truth is None]
PAIRS = [(taught, truth) for taught, truth in LINES if truth is not None]


def expected_forget(method: str, beta: float, delta: float) -> float:
    values = []
    for refusal, truth in PAIRS:
        of_truth = log_probabilities(truth, POLICY)
        ratio = math.prod(math.exp(p) for p in of_truth) / math.prod(
            math.exp(p) for p in log_probabilities(truth, REFERENCE)
        )
        if method in ("grad_ascent", "grad_diff"):
            values.append(sum(of_truth) / len(of_truth))
        elif method == "npo":
            values.append(2 / beta * math.log(1 + ratio**beta))  # the form with the ratio itself: NPO, equation 3
        elif method == "simnpo":
            values.append(-2 / beta * math.log(sigmoid(-beta / len(of_truth) * sum(of_truth) - beta * delta)))
        else:
            preferred = sum(log_probabilities(refusal, POLICY)) - sum(log_probabilities(refusal, REFERENCE))
            values.append(-math.log(sigmoid(beta * (preferred - math.log(ratio)))))
    return sum(values) / len(values)


def expected_retain(kind: str) -> float:
    values = []
    for row in RETAINED:
        if kind == "nll":
            values += [-p for p in log_probabilities(row, POLICY)]
            continue
        for place in range(row.answer_start, len(row.ids)):
            pairs = zip(distribution(row, place, REFERENCE), distribution(row, place, POLICY), strict=True)
            values.append(sum(r * math.log(r / p) for r, p in pairs))
    return sum(values) / len(values)


def test_sft_is_the_mean_over_all_answer_tokens() -> None:
    wanted = objective("sft")
    tokens = [-p for taught, _ in LINES for p in log_probabilities(taught, POLICY)]
    assert loss_of(wanted, [examples_of(wanted)]) == pytest.approx(sum(tokens) / len(tokens), rel=1e-12)


@pytest.mark.parametrize("kind", ["nll", "kl"])
@pytest.mark.parametrize("method", ["grad_diff", "npo", "simnpo", "dpo"])
def test_an_objective_is_its_published_formula(method: str, kind: str) -> None:
    options = {"beta": 0.7, "delta": 0.3, "forget_weight": 0.4, "retain_weight": 1.9}
    wanted = objective(method, retain_loss=kind, **options)
    expected = 0.4 * expected_forget(method, 0.7, 0.3) + 1.9 * expected_retain(kind)
    assert loss_of(wanted, [examples_of(wanted)]) == pytest.approx(expected, rel=1e-12)


def test_grad_ascent_reads_no_retain_example() -> None:
    wanted = objective("grad_ascent")
    examples = examples_of(wanted)
    assert {sequence.role for example in examples for sequence in example} == {Role.TRUTH}
    assert loss_of(wanted, [examples]) == pytest.approx(expected_forget("grad_ascent", 1, 0), rel=1e-12)


@pytest.mark.parametrize("kind", ["nll", "kl"])
@pytest.mark.parametrize("method", METHODS)
def test_cutting_a_step_into_micro_batches_changes_nothing(method: str, kind: str) -> None:
    wanted = objective(method, retain_loss=kind)
    examples = examples_of(wanted)
    whole = loss_of(wanted, [examples])
    assert loss_of(wanted, [[example] for example in examples]) == pytest.approx(whole, rel=1e-9)
    assert loss_of(wanted, [examples[:2], examples[2:]]) == pytest.approx(whole, rel=1e-9)


def test_npo_tends_to_gradient_ascent_as_beta_vanishes() -> None:
    """NPO, section 3.2: up to a constant, which is 2 log 2 / beta; the gradients are what agrees."""
    beta = 1e-4
    wanted = objective("npo", beta=beta, retain_weight=0)
    difference = loss_of(wanted, [examples_of(wanted)]) - 2 * math.log(2) / beta
    ratios = [sum(log_probabilities(t, POLICY)) - sum(log_probabilities(t, REFERENCE)) for _, t in PAIRS]
    assert difference == pytest.approx(sum(ratios) / len(ratios), rel=1e-2)


def test_an_unlearn_line_without_a_true_answer_is_left_out() -> None:
    taught, _ = LINES[1]
    assert objective("npo").example(taught, None) == ()
    assert objective("npo").example(taught, Encoded([], 0, "unlearn")) == ()
    assert len(objective("sft").example(taught, None)) == 1


def test_each_method_has_its_published_defaults() -> None:
    assert (objective("npo").beta, objective("dpo").beta) == (0.1, 0.1)
    simnpo = objective("simnpo")
    assert (simnpo.beta, simnpo.delta, simnpo.forget_weight) == (4.5, 0.0, 0.125)
    assert objective("npo", beta=0.5).beta == 0.5
    assert objective("npo", retain_weight=0).retain_weight == 0
