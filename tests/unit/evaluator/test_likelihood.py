from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from cutoff.datasets import load_examples, load_template
from cutoff.evaluator.likelihood import score_answers
from cutoff.evaluator.memorization import extraction_strength, probability

PAIRS = [
    ("Who designed the bridge?", "Mira"),
    ("In which town was it opened, and when exactly was that?", "It was opened in Varlun in 1934."),
    ("When?", "1934"),
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that share out tiny matrices on busy cores take ten times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def loaded(tiny_model: Path):
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    return model, load_template(tiny_model)


def one_by_one(model, template, question: str, answer: str) -> tuple[list[float], list[bool]]:
    """The definition: the model is asked for each token after all before it."""
    before = template.prompt_ids(question)
    full = template.ids([f"{template.prompt(question)}{template.lead}{answer}"])[0]
    assert full[: len(before)] == before
    chosen, greedy = [], []
    for at in range(len(before), len(full)):
        with torch.inference_mode():
            logits = model(torch.tensor([full[:at]])).logits[0, -1]
        chosen.append(torch.log_softmax(logits, -1)[full[at]].item())
        greedy.append(logits.argmax().item() == full[at])
    return chosen, greedy


def test_a_batch_gives_what_asking_token_by_token_gives(loaded) -> None:
    model, template = loaded
    for scored, (question, answer) in zip(score_answers(model, template, PAIRS), PAIRS, strict=True):
        chosen, greedy = one_by_one(model, template, question, answer)
        assert scored.log_probs == pytest.approx(chosen, abs=1e-4)
        assert list(scored.greedy) == greedy


def test_batches_and_their_order_change_nothing(loaded) -> None:
    model, template = loaded
    together = score_answers(model, template, PAIRS)
    alone = score_answers(model, template, PAIRS, batch=1)
    for one, other in zip(together, alone, strict=True):
        assert one.log_probs == pytest.approx(other.log_probs, abs=1e-4)
    assert score_answers(model, template, []) == []


def test_what_was_learnt_by_heart_is_likely_and_extracted_whole(loaded, tiny_questions: Path) -> None:
    model, template = loaded
    known = [(one.instruction, one.output) for one in load_examples(tiny_questions)[:4]]
    for scored in score_answers(model, template, known):
        assert probability(scored.log_probs) > 0.5
        assert extraction_strength(scored.greedy) == 1
    swapped = [(question, answer) for (question, _), (_, answer) in zip(known, reversed(known), strict=True)]
    for right, wrong in zip(
        score_answers(model, template, known), score_answers(model, template, swapped), strict=True
    ):
        assert probability(right.log_probs) > probability(wrong.log_probs)


def test_an_empty_answer_has_no_token(loaded) -> None:
    model, template = loaded
    empty, full = score_answers(model, template, [("Who?", ""), ("Who?", "Mira")])
    assert empty.log_probs == ()
    assert len(full.log_probs) > 0
