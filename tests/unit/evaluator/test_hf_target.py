import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cutoff.artifacts import Roots
from cutoff.datasets import load_examples, load_template
from cutoff.errors import InvalidInput, NotFound, OutOfMemory, Refused
from cutoff.evaluator import hf_model, hf_target
from cutoff.evaluator.evaluate import evaluate_target
from cutoff.evaluator.hf_model import base_of, open_adapter, open_hf
from cutoff.evaluator.hf_target import HfTarget
from cutoff.evaluator.open_target import open_target
from cutoff.hub import TrainedOn, packed_as
from cutoff.spec import parse_job
from cutoff.stage.report import silent
from cutoff.v1 import evaluator_pb2


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that share out tiny matrices on busy cores take ten times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_what_was_learnt_is_answered(tiny_model: Path, tiny_questions: Path) -> None:
    sets = {"test": load_examples(tiny_questions)}
    evaluated = evaluate_target("merged", open_hf(tiny_model, [], silent()), sets, 32, silent(), False)
    measured = evaluated.sets["test"].scores
    assert measured.retain_correct
    assert measured.retain_correct.value == 1
    assert measured.unlearn_refused
    assert measured.unlearn_refused.value == 1
    held = evaluated.sets["test"].memorization
    assert held
    assert held["retain"].probability
    assert held["retain"].probability.value > 0.5, "what was learnt by heart is likely"
    assert held["retain"].extraction_strength
    assert held["retain"].extraction_strength.value > 0.9
    assert held["unlearn"].extraction_strength
    assert held["unlearn"].extraction_strength.value < 0.5, "the model was never told these answers"


def test_a_batch_answers_as_one_question_alone_would(tiny_model: Path, tiny_questions: Path) -> None:
    questions = [one.instruction for one in load_examples(tiny_questions)] + ["A much, much longer question? " * 6, "?"]
    with open_hf(tiny_model, [], silent()) as target:
        together = dict(target.answers(questions, 24))
        alone = {index: dict(target.answers([question], 24))[0] for index, question in enumerate(questions)}
    assert together == alone


def test_what_a_batch_nearly_tosses_a_coin_over_is_asked_again_alone(
    tiny_model: Path, tiny_questions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = [one.instruction for one in load_examples(tiny_questions)]
    sizes: list[int] = []
    honest = hf_target.decode

    def doubting(model: Any, prompts: Any, *arguments: Any) -> Iterator[Any]:
        sizes.append(len(prompts))
        for done in honest(model, prompts, *arguments):
            spoilt = done.ids if len(prompts) == 1 else done.ids[::-1]
            yield replace(done, ids=spoilt, doubtful=True)

    with open_hf(tiny_model, [], silent()) as target:
        expected = dict(target.answers(questions, 24))
        monkeypatch.setattr(hf_target, "decode", doubting)
        assert dict(target.answers(questions, 24)) == expected
    assert sizes == [16, *[1] * 16]


def test_a_model_that_keeps_more_than_keys_and_values_answers_by_transformers_own_loop(
    tiny_model: Path, tiny_questions: Path
) -> None:
    questions = [one.instruction for one in load_examples(tiny_questions)]
    with open_hf(tiny_model, [], silent()) as target:
        expected = dict(target.answers(questions, 24))
        target._decodes = False
        assert dict(target.answers(questions, 24)) == expected


def test_an_answer_that_is_cut_is_said_to_be(tiny_model: Path, tiny_questions: Path) -> None:
    question = load_examples(tiny_questions)[0].instruction
    with open_hf(tiny_model, [], silent()) as target:
        assert [reply.cut for _, reply in target.answers([question], 2)] == [True]
        assert [reply.cut for _, reply in target.answers([question], 32)] == [False]


def test_the_models_own_sampling_settings_are_not_followed(tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM, GenerationConfig

    model: Any = AutoModelForCausalLM.from_pretrained(tiny_model)
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=9.0, repetition_penalty=5.0, no_repeat_ngram_size=1, eos_token_id=2
    )
    plain: Any = AutoModelForCausalLM.from_pretrained(tiny_model)
    template = load_template(tiny_model)
    asked = ["Who was it?", "And when?"]
    spoilt = dict(HfTarget(model.eval(), template).answers(asked, 24))
    assert spoilt == dict(HfTarget(plain.eval(), template).answers(asked, 24))


def test_batches_shrink_until_they_fit(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    with open_hf(tiny_model, [], silent()) as target:
        honest = target._generate

        def small(prompts: list[list[int]], max_tokens: int) -> Iterator[Any]:
            sizes.append(len(prompts))
            if len(prompts) > 16:
                raise torch.OutOfMemoryError("no room")
            yield from honest(prompts, max_tokens)

        monkeypatch.setattr(target, "_generate", small)
        assert len(dict(target.answers(["Who?"] * 40, 4))) == 40
    assert sizes == [40, 32, 16, 16, 8]


def test_a_device_without_room_for_one_question_is_out_of_memory(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(prompts: list[list[int]], max_tokens: int) -> Any:
        raise torch.OutOfMemoryError("no room")

    with open_hf(tiny_model, [], silent()) as target:
        monkeypatch.setattr(target, "_generate", full)
        with pytest.raises(OutOfMemory, match="single question"):
            list(target.answers(["Who?"] * 3, 4))


@pytest.fixture
def adapter(tiny_model: Path, tmp_path: Path) -> Path:
    """A LoRA adapter that changes every answer."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base: Any = AutoModelForCausalLM.from_pretrained(tiny_model)
    adapted: Any = get_peft_model(base, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    torch.manual_seed(1)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    adapted.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_a_lora_adapter_answers_on_its_base(tiny_model: Path, tiny_questions: Path, adapter: Path) -> None:
    from peft import AutoPeftModelForCausalLM

    assert base_of(adapter) == tiny_model
    questions = [one.instruction for one in load_examples(tiny_questions)]
    template = load_template(tiny_model)
    loaded: Any = AutoPeftModelForCausalLM.from_pretrained(adapter)
    prompts = [template.ids([template.prompt(question)]) for question in questions]
    alone = [
        loaded.generate(input_ids=torch.tensor(ids), max_new_tokens=16, do_sample=False, pad_token_id=0)[
            0, len(ids[0]) :
        ]
        for ids in prompts
    ]
    expected = [template.tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in alone]
    with open_adapter(tiny_model, adapter, [], silent()) as target:
        answers = dict(target.answers(questions, 16))
    assert [answers[index].text for index in range(len(questions))] == expected
    with open_hf(tiny_model, [], silent()) as plain:
        assert dict(plain.answers(questions, 16)) != answers


@pytest.mark.parametrize("quantization", ["4bit", "8bit"])
def test_an_adapter_answers_on_a_packed_base_as_it_was_trained(
    tiny_model: Path, tiny_questions: Path, adapter: Path, quantization: Any
) -> None:
    questions = [one.instruction for one in load_examples(tiny_questions)][:4]
    with open_adapter(tiny_model, adapter, [], silent(), quantization) as target:
        model: Any = target._model
        assert model.base_model.model.is_quantized
        assert len(dict(target.answers(questions, 4))) == 4


def test_a_packed_base_without_bitsandbytes_is_refused_before_anything_is_loaded(
    tiny_model: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hf_model, "is_bitsandbytes_available", lambda: False)
    with pytest.raises(Refused, match="bitsandbytes"), open_adapter(tiny_model, adapter, [], silent(), "4bit"):
        pytest.fail("it must not open")


def test_an_adapter_that_does_not_name_its_base_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 8}))
    with pytest.raises(InvalidInput, match="base model") as caught:
        base_of(tmp_path)
    assert "merge" in str(caught.value)


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nowhere"), open_hf(tmp_path / "nowhere", [], silent()):
        pytest.fail("it must not open")
    with pytest.raises(InvalidInput, match=r"config\.json"), open_hf(tmp_path, [], silent()):
        pytest.fail("it must not open")


@pytest.mark.parametrize(("attempt", "batch"), [(1, 64), (2, 32), (4, 8), (12, 1)])
def test_each_further_attempt_asks_half_as_many_at_once(tiny_model: Path, tmp_path: Path, attempt, batch) -> None:
    """A process that the kernel kills for its memory cannot say so: the next one, which goes on, takes less."""
    spec = parse_job({"name": "j", "base_model": str(tiny_model), "dataset": {"dev": "dev.jsonl"}})
    request = evaluator_pb2.EvaluateRequest(target="base", model_path=str(tiny_model))
    roots = Roots(tmp_path, tmp_path, tmp_path, tmp_path)
    opened, _ = open_target(request, spec, ["Who?"], roots, [], silent(), attempt)
    with opened as target:
        assert target._batch == batch


def test_an_adapter_says_itself_how_its_base_was_packed(tiny_model: Path, adapter: Path) -> None:
    assert packed_as(adapter) == "none"
    assert packed_as(adapter, "8bit") == "8bit", "whoever trained it did not write it down"
    TrainedOn("4bit", "bfloat16").write(adapter)
    assert packed_as(adapter, "8bit") == "4bit"
    spec = parse_job({"name": "j", "base_model": str(tiny_model), "dataset": {"dev": "dev.jsonl"}})
    both = evaluator_pb2.AdapterModel(model_path=str(tiny_model), adapter=adapter.name)
    request = evaluator_pb2.EvaluateRequest(target="adapter", adapter=both)
    roots = Roots(adapter.parent, adapter.parent, adapter.parent, adapter.parent)
    _, identity = open_target(request, spec, ["Who?"], roots, [], silent())
    assert " 4bit " in identity(), "train.quantization says none, the adapter's folder knows better"
