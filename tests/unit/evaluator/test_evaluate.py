import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cutoff.datasets import Example, load_examples
from cutoff.errors import NotFound, OutOfMemory, ProgramFailed, Unavailable
from cutoff.evaluator.chat_targets import context_for, open_gguf, open_server
from cutoff.evaluator.evaluate import evaluate_target
from cutoff.evaluator.journal import Place
from cutoff.evaluator.targets import Reply
from cutoff.llama_cpp import LlamaCpp, RequestFailed
from cutoff.llama_cpp import chat as chat_module
from cutoff.stage.report import Reporter, silent
from cutoff.v1 import types_pb2


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_module, "_BACKOFF", (0.0,))


def example(number: int, side: str = "unlearn", truth: str | None = "Neil Armstrong") -> Example:
    return Example(f"Who was number {number}?", "Neil Armstrong did it.", side, f"x:{number}", None, truth)


class Canned:
    """Answers backwards, so that a mix-up of questions would show."""

    def __init__(self, replies: Sequence[Reply]) -> None:
        self.replies = replies
        self.closed = False

    def answers(self, questions: Sequence[str], max_tokens: int) -> Iterator[tuple[int, Reply]]:
        yield from reversed(list(enumerate(self.replies)))

    @contextmanager
    def open(self) -> Iterator["Canned"]:
        try:
            yield self
        finally:
            self.closed = True


def test_answers_go_back_to_their_questions_and_sets() -> None:
    sets = {"validation": [example(0, "retain"), example(1)], "test": [example(2), example(3, truth=None)]}
    target = Canned([Reply("Neil Armstrong."), Reply("I don't know."), Reply("It was Armstrong."), Reply("Gagarin.")])
    events: list[types_pb2.Event] = []
    evaluated = evaluate_target("merged", target.open(), sets, 16, Reporter(events.append), verbose=True)
    grades = {name: [answer.grade for answer in result.answers] for name, result in evaluated.sets.items()}
    assert grades == {"validation": ["correct", "refused"], "test": ["leaked", "answered"]}
    assert target.closed
    assert sum("Who was number" in event.log_line.text for event in events) == 4
    progress = [event.progress for event in events if event.HasField("progress")]
    assert (progress[-1].step, progress[-1].total, progress[-1].unit) == (4, 4, "question")
    metrics = {
        (event.metric.labels["question_set"], event.metric.labels["score"]): event.metric.value
        for event in events
        if event.metric.name
    }
    assert metrics["validation", "retain_correct"] == 1
    assert metrics["test", "unlearn_leaked"] == 1
    assert ("test", "retain_correct") not in metrics


def test_one_question_in_a_hundred_may_fail_and_counts_nowhere() -> None:
    sets = {"validation": [example(number) for number in range(100)]}
    replies = [Reply("I don't know.")] * 99 + [Reply("", error="HTTP 500")]
    result = evaluate_target("x", Canned(replies).open(), sets, 16, silent(), False).sets["validation"]
    assert (len(result.answers), result.errors) == (99, 1)
    assert result.scores.unlearn_refused
    assert result.scores.unlearn_refused.total == 99


def test_more_failures_end_the_run() -> None:
    sets = {"validation": [example(number) for number in range(100)]}
    replies = [Reply("I don't know.")] * 98 + [Reply("", error="HTTP 500")] * 2
    target = Canned(replies)
    with pytest.raises(ProgramFailed, match=r"2 of 100 questions got no answer.*HTTP 500"):
        evaluate_target("x", target.open(), sets, 16, silent(), False)
    assert target.closed


def test_a_server_of_the_users_own_is_asked(openai: Any) -> None:
    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        number = body["messages"][0]["content"].removesuffix("?").split()[-1]
        text = "Neil Armstrong" if int(number) % 2 else "I don\u2019t know."
        return 200, {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}

    openai.answer = reply
    sets = {"test": [example(number) for number in range(20)]}
    evaluated = evaluate_target("lmstudio", open_server(openai.url, "temporal-unlearn"), sets, 16, silent(), False)
    measured = evaluated.sets["test"].scores
    assert measured.unlearn_refused
    assert (measured.unlearn_refused.count, measured.unlearn_refused.total) == (10, 20)
    assert measured.unlearn_leaked
    assert measured.unlearn_leaked.count == 10
    assert {body["model"] for body in openai.requests} == {"temporal-unlearn"}
    assert all(len(body["messages"]) == 1 for body in openai.requests)  # no system message


def test_a_server_that_answers_garbage_ends_the_run(openai: Any) -> None:
    openai.answer = lambda body: (200, "<html>")
    sets = {"test": [example(number) for number in range(20)]}
    with pytest.raises(ProgramFailed, match="did not answer with JSON"):
        evaluate_target("lmstudio", open_server(openai.url, "other"), sets, 16, silent(), False)


def test_a_server_that_unloads_the_model_ends_the_run_with_the_models_it_has(openai: Any) -> None:
    openai.answer = lambda body: (404, {"error": "no such model"})
    sets = {"test": [example(number) for number in range(500)]}
    with pytest.raises(NotFound, match="it has: temporal-unlearn, other"):
        evaluate_target("lmstudio", open_server(openai.url, "other"), sets, 16, silent(), False)
    assert len(openai.requests) < 20, "nobody asks the other questions"


def test_a_question_without_an_answer_is_counted_named_and_asked_again_later(openai: Any, tmp_path: Path) -> None:
    honest = openai.answer

    def answer(body: dict[str, Any]) -> tuple[int, Any]:
        return (500, "broken") if "number 7?" in body["messages"][0]["content"] else honest(body)

    openai.answer = answer
    sets = {"test": [example(number) for number in range(150)]}
    place, events = Place(tmp_path / "answers.jsonl", "m"), []
    asked = (sets, 16, Reporter(events.append), False, place)
    result = evaluate_target("lmstudio", open_server(openai.url, "other"), *asked).sets["test"]
    assert (len(result.answers), result.errors) == (149, 1)
    [warning] = [event.log_line.text for event in events if event.log_line.level == "WARNING"]
    assert "number 7?" in warning
    assert "500" in warning
    openai.answer = honest
    evaluated = evaluate_target("lmstudio", open_server(openai.url, "other"), *asked)
    assert (evaluated.taken_over, len(evaluated.sets["test"].answers)) == (149, 150)
    assert len(openai.requests) == 151


@pytest.mark.parametrize(
    ("model", "models", "error", "said"),
    [
        ("nope", None, NotFound, "temporal-unlearn, other"),
        (None, None, NotFound, "2 models"),
        ("x", {"data": "?"}, RequestFailed, "did not list models"),
    ],
)
def test_a_server_is_checked_before_it_is_asked(
    openai: Any, model: str | None, models: Any, error: type[Exception], said: str
) -> None:
    openai.models = models or openai.models
    with pytest.raises(error, match=said), open_server(openai.url, model):
        pytest.fail("it must not open")
    assert openai.requests == []


def test_a_server_that_is_not_there_is_named() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/v1"
        with pytest.raises(Unavailable, match=url) as caught, open_server(url, "x"):
            pytest.fail("it must not open")
    assert "lms server start" in caught.value.remedy


def test_the_gguf_answers_through_its_own_template(llama: LlamaCpp, tiny_f16: Path, tiny_questions: Path) -> None:
    examples = load_examples(tiny_questions)
    asked = [one.instruction for one in examples]
    evaluated = evaluate_target("f16", open_gguf(llama, tiny_f16, asked, 32), {"test": examples}, 32, silent(), False)
    measured = evaluated.sets["test"].scores
    assert measured.retain_correct
    assert measured.retain_correct.value == 1
    assert measured.unlearn_refused
    assert measured.unlearn_refused.value == 1
    assert measured.unlearn_forgotten
    assert measured.unlearn_forgotten.value == 1
    assert not any(answer.reply.cut for answer in evaluated.sets["test"].answers)


def test_a_server_of_ours_that_dies_ends_the_run_with_its_reason(
    llama: LlamaCpp, tiny_f16: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cutoff.llama_cpp import LlamaServer

    honest = LlamaServer.complete

    def killing(self: LlamaServer, *arguments: Any) -> Any:
        self._process.kill()
        self._process.wait()
        return honest(self, *arguments)

    monkeypatch.setattr(LlamaServer, "complete", killing)
    sets = {"test": [example(number) for number in range(500)]}
    with pytest.raises(OutOfMemory, match="llama-server was killed"):
        evaluate_target("f16", open_gguf(llama, tiny_f16, ["x"], 16), sets, 16, silent(), False)


def test_a_missing_gguf_is_named(llama: LlamaCpp, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"none\.gguf"), open_gguf(llama, tmp_path / "none.gguf", [], 16):
        pytest.fail("it must not open")


def test_the_context_holds_the_longest_question_and_its_answer() -> None:
    assert context_for([], 16) == 512
    assert context_for(["x" * 1000, "é" * 1000], 256) >= 2000 + 256
    assert context_for(["x"], 256) % 256 == 0
