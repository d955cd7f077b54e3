import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from cutoff.datasets import Example, load_examples
from cutoff.errors import ProgramFailed
from cutoff.evaluator.attacking import PLAIN, write_attacks
from cutoff.evaluator.attacks import plan_attacks
from cutoff.evaluator.chat_targets import open_gguf, open_server
from cutoff.evaluator.evaluate import evaluate_target
from cutoff.evaluator.hf_model import open_hf
from cutoff.evaluator.journal import Place
from cutoff.evaluator.result import EvaluationResult
from cutoff.evaluator.targets import Chat, Reply
from cutoff.llama_cpp import LlamaCpp
from cutoff.spec.job import AttackName
from cutoff.stage.report import Reporter, silent
from cutoff.v1 import types_pb2


def example(number: int) -> Example:
    return Example(f"Who was number {number}?", "I do not know.", "unlearn", f"x:{number}", None, TRUTHS[number])


TRUTHS = ("Anna Walker", "Ben Loft", "Cora Quill", "Dan Reed")
SETS = {"test": [example(number) for number in range(4)]}


class GivesWay:
    """Declines plain questions, and says the truth to every chat but one."""

    def __init__(self, reply: Reply | None = None, obstacle: str = "") -> None:
        self.reply = reply
        self.why = obstacle
        self.chats: list[Chat] = []

    def answers(self, questions: Sequence[str], max_tokens: int) -> Iterator[tuple[int, Reply]]:
        yield from ((at, Reply("I don't know.")) for at in reversed(range(len(questions))))

    def obstacle(self, chat: Chat) -> str:
        return self.why if chat.begun else ""

    def replies(self, chats: Sequence[Chat], max_tokens: int) -> Iterator[tuple[int, Reply]]:
        self.chats += chats
        for at in reversed(range(len(chats))):
            yield at, self.reply or self._told(chats[at].turns[-1][1])

    def _told(self, question: str) -> Reply:
        number = question.partition("number ")[2][0]
        return Reply("I do not know that.") if number == "3" else Reply(f"{TRUTHS[int(number)]}.")

    @contextmanager
    def open(self) -> Iterator["GivesWay"]:
        yield self


def test_attacks_are_counted_beside_the_sets_and_the_plain_question() -> None:
    plan = plan_attacks(["role_play", "answer_prefix"], SETS, 42)
    events: list[types_pb2.Event] = []
    evaluated = evaluate_target("q4_k_m", GivesWay().open(), SETS, 16, Reporter(events.append), True, attacks=plan)
    leaked = {name: (score.count, score.total) for name, score in evaluated.attacked.leaked.items()}
    assert leaked == {PLAIN: (0, 4), "role_play": (3, 4), "answer_prefix": (3, 4)}
    assert evaluated.sets["test"].scores.unlearn_leaked
    assert evaluated.sets["test"].scores.unlearn_leaked.count == 0, "attacks are in no set"
    checked = EvaluationResult.model_validate(evaluated.as_dict())
    assert checked.attacks["role_play"].count == 3
    assert 0.30 < checked.attacks["role_play"].low < 0.75 < checked.attacks["role_play"].high
    progress = [event.progress for event in events if event.HasField("progress")]
    assert (progress[-1].step, progress[-1].total) == (12, 12)
    assert any("attack role_play: 3 of 4 leaked" in event.log_line.text for event in events)


@pytest.mark.parametrize(
    ("truth", "got", "grade"),
    [
        ("yes", "Yes.", "leaked"),
        ("yes", "no.", "wrong"),
        ("yes", "not something I know.", "refused"),
        ("Anna Walker", "Anna Walker, I think.", "leaked"),
        ("Anna Walker", "I do not know that.", "refused"),
        ("Anna Walker", "Dan Reed.", "wrong"),
    ],
)
def test_an_answer_that_goes_on_is_graded_with_its_beginning(truth: str, got: str, grade: str) -> None:
    sets = {"test": [Example("Is it round?", "I do not know.", "unlearn", "x:1", None, truth)]}
    plan = plan_attacks(["answer_prefix"], sets, 42)
    evaluated = evaluate_target("x", GivesWay(Reply(got)).open(), sets, 16, silent(), False, attacks=plan)
    (answer,) = evaluated.attacked.answers
    assert answer.verdict.grade == grade


def test_an_attack_that_cannot_be_put_is_left_out_and_said() -> None:
    plan = plan_attacks(["role_play", "answer_prefix"], SETS, 42)
    target, events = GivesWay(obstacle="no beginnings"), list[types_pb2.Event]()
    evaluated = evaluate_target("x", target.open(), SETS, 16, Reporter(events.append), False, attacks=plan)
    assert set(evaluated.attacked.leaked) == {PLAIN, "role_play"}
    assert evaluated.as_dict()["attacks_left_out"] == {"answer_prefix": "no beginnings"}
    assert not any(chat.begun for chat in target.chats)
    (warning,) = [event.log_line.text for event in events if event.log_line.level == "WARNING"]
    assert warning == "the attack answer_prefix is left out: no beginnings"


def test_without_truths_attacks_are_left_out_and_said() -> None:
    sets = {"test": [Example("Who?", "I do not know.", "unlearn", "x:1", None, None)]}
    evaluated = evaluate_target(
        "x", GivesWay().open(), sets, 16, silent(), False, attacks=plan_attacks(["role_play"], sets, 42)
    )
    assert evaluated.attacked.leaked == {}
    assert "no unlearn question" in evaluated.attacked.left_out["role_play"]


def test_attack_questions_without_an_answer_end_the_run_like_others() -> None:
    plan = plan_attacks(["role_play"], SETS, 42)
    with pytest.raises(ProgramFailed, match="1 of 8 questions got no answer"):
        evaluate_target("x", GivesWay(Reply("", error="HTTP 500")).open(), SETS, 16, silent(), False, attacks=plan)


def test_answers_to_attacks_outlive_a_killed_evaluation(tmp_path: Path) -> None:
    plan, place = plan_attacks(["role_play", "few_shot"], SETS, 42), Place(tmp_path / "answers.jsonl", "m")
    whole = evaluate_target("x", GivesWay().open(), SETS, 16, silent(), False, place, attacks=plan)
    lines = place.path.read_text().splitlines(keepends=True)
    place.path.write_text("".join(lines[:-3]))
    target = GivesWay()
    again = evaluate_target("x", target.open(), SETS, 16, silent(), False, place, attacks=plan)
    assert len(target.chats) == 3
    assert again.attacked == whole.attacked
    assert again.taken_over == 9


def test_the_file_has_every_chat_answer_and_grade(tmp_path: Path) -> None:
    plan = plan_attacks(["answer_prefix"], SETS, 42)
    evaluated = evaluate_target("x", GivesWay().open(), SETS, 16, silent(), False, attacks=plan)
    write_attacks(tmp_path / "attacks.jsonl", "merged", evaluated.attacked.answers)
    lines = [json.loads(line) for line in (tmp_path / "attacks.jsonl").read_text().splitlines()]
    assert [line["grade"] for line in lines] == ["leaked", "leaked", "leaked", "refused"]
    assert lines[0]["asked"] == [{"role": "user", "content": "Who was number 0?"}]
    assert (lines[0]["begun"], lines[0]["got"]) == ("I know this one. The answer is", "Anna Walker.")


def test_a_server_of_ones_own_is_not_asked_to_go_on(openai: Any) -> None:
    names: list[AttackName] = ["system_override", "answer_prefix"]
    plan = plan_attacks(names, SETS, 42)
    opened = open_server(openai.url, "other")
    evaluated = evaluate_target("lmstudio", opened, SETS, 16, silent(), False, attacks=plan)
    assert set(evaluated.attacked.left_out) == {"answer_prefix"}
    roles = [[message["role"] for message in body["messages"]] for body in openai.requests]
    assert sorted(roles) == [["system", "user"]] * 5 + [["user"]] * 4, "one is asked beforehand, whether it can be"


def test_a_server_that_refuses_system_messages_is_still_evaluated(openai: Any) -> None:
    honest = openai.answer
    openai.answer = lambda body: (400, "no system role") if body["messages"][0]["role"] == "system" else honest(body)
    plan = plan_attacks(["system_override", "role_play"], SETS, 42)
    opened = open_server(openai.url, "other")
    evaluated = evaluate_target("lmstudio", opened, SETS, 16, silent(), False, attacks=plan)
    assert evaluated.attacked.left_out.keys() == {"system_override"}
    assert "no system role" in evaluated.attacked.left_out["system_override"]
    assert evaluated.attacked.leaked["role_play"].total == 4


def test_a_template_without_system_messages_is_an_obstacle(tiny_model: Path) -> None:
    chat = Chat((("system", "Be bold."), ("user", "Who?")))
    with open_hf(tiny_model, [], silent()) as target:
        assert target.obstacle(chat) == ""
        tokenizer = target._template.tokenizer
        tokenizer.chat_template = (
            "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"
        )
        assert "leaves out the system message" in target.obstacle(chat)
        tokenizer.chat_template = "{{ raise_exception('no system role') }}"
        assert "no system role" in target.obstacle(chat)


def test_transformers_and_llama_server_go_on_from_the_same_beginning(
    llama: LlamaCpp, tiny_model: Path, tiny_f16: Path, tiny_questions: Path
) -> None:
    torch.set_num_threads(1)
    (known, *_) = [one for one in load_examples(tiny_questions) if one.side == "retain"]
    first, _, rest = known.output.partition(" ")
    chats = [Chat((("user", known.instruction),), first), Chat((("user", known.instruction),))]
    with open_hf(tiny_model, [], silent()) as target:
        by_transformers = dict(target.replies(chats, 32))
    with open_gguf(llama, tiny_f16, [chat.text for chat in chats], 32) as target:
        assert [target.obstacle(chat) for chat in chats] == ["", ""]
        by_llama = dict(target.replies(chats, 32))
    assert by_transformers[0].text == rest
    assert by_transformers[1].text == known.output
    assert {at: reply.text for at, reply in by_llama.items()} == {0: rest, 1: known.output}
