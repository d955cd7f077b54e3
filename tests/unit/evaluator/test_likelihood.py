import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, MambaConfig, MambaForCausalLM

from cutoff.datasets import load_examples, load_template
from cutoff.errors import OutOfMemory
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


def small_gpt2(vocabulary: int) -> GPT2LMHeadModel:
    return GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, n_embd=32, n_layer=2, n_head=2, n_positions=256))


def small_mamba(vocabulary: int) -> MambaForCausalLM:
    return MambaForCausalLM(MambaConfig(vocab_size=vocabulary, hidden_size=32, num_hidden_layers=2, state_size=8))


@pytest.mark.parametrize("make", [small_gpt2, small_mamba])
def test_padding_changes_nothing_whatever_a_model_knows_of_places(loaded, make) -> None:
    model, template = loaded
    torch.manual_seed(0)
    other = make(model.config.vocab_size).eval()
    for scored, (question, answer) in zip(score_answers(other, template, PAIRS), PAIRS, strict=True):
        chosen, _ = one_by_one(other, template, question, answer)
        assert scored.log_probs == pytest.approx(chosen, abs=1e-4)


def test_an_adapter_is_scored_with_what_it_learnt(loaded, tiny_model: Path) -> None:
    _, template = loaded
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    adapted = get_peft_model(base, config).eval()
    scored = score_answers(adapted, template, PAIRS)
    for one, (question, answer) in zip(scored, PAIRS, strict=True):
        assert one.log_probs == pytest.approx(one_by_one(adapted, template, question, answer)[0], abs=1e-4)
    with adapted.disable_adapter():
        assert scored[0].log_probs != pytest.approx(score_answers(adapted, template, PAIRS)[0].log_probs, abs=1e-2)


def test_batches_shrink_when_memory_runs_out(loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    model, template = loaded
    forward = model.forward

    def small(input_ids, **options):
        if len(input_ids) > 1:
            raise torch.OutOfMemoryError("too many")
        return forward(input_ids, **options)

    small.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    expected = score_answers(model, template, PAIRS)
    monkeypatch.setattr(model, "forward", small)
    for one, other in zip(score_answers(model, template, PAIRS), expected, strict=True):
        assert one.log_probs == pytest.approx(other.log_probs, abs=1e-4)

    def none(*_, **__):
        raise torch.OutOfMemoryError("too many")

    monkeypatch.setattr(model, "forward", none)
    with pytest.raises(OutOfMemory, match="no room for one answer"):
        score_answers(model, template, PAIRS)
