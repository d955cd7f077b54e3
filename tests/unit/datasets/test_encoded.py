from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cutoff.datasets import SIDES, Example, encode_examples, encoded, template_of
from cutoff.datasets.encode import Encoder
from cutoff.datasets.encoded import Cut, EncodedSet, EncodedWriter
from cutoff.datasets.examples import Faults
from cutoff.datasets.tokenized import Turn, tokenized
from cutoff.errors import InvalidInput
from tests.fixtures.bpe_tokenizer import SPECIAL, MakeTokenizer
from tests.unit.datasets.test_prompts import CHATML, FAMILIES

rows = st.lists(
    st.tuples(st.lists(st.integers(0, 2**31 - 1), max_size=9), st.integers(0, 9), st.sampled_from(SIDES)), max_size=20
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=rows, spool=st.integers(1, 30))
def test_what_is_written_is_what_is_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[tuple[list[int], int, str]], spool: int
) -> None:
    monkeypatch.setattr(encoded, "_SPOOL", spool)
    memory = EncodedWriter()
    with EncodedWriter(tmp_path, "train") as files:
        for row in rows:
            files.add(*row)  # type: ignore[arg-type]
            memory.add(*row)  # type: ignore[arg-type]
    for made in (memory.in_memory(Cut(3)), EncodedSet.load(tmp_path, "train", Cut(3))):
        assert [(each.ids, each.answer_start, each.side) for each in made] == rows
        assert made.lengths.tolist() == [len(ids) for ids, *_ in rows]
        assert made.tokens() == sum(made.lengths)
        assert made.truncated == 3


def test_arrays_are_little_endian_and_of_the_width_that_is_documented(tmp_path: Path) -> None:
    with EncodedWriter(tmp_path, "t") as writer:
        writer.add([1, 2, 3], 2, "unlearn")
    assert (tmp_path / "t.ids.bin").read_bytes() == np.array([1, 2, 3], "<i4").tobytes()
    assert (tmp_path / "t.offsets.bin").read_bytes() == np.array([0, 3], "<i8").tobytes()
    assert (tmp_path / "t.answer_start.bin").read_bytes() == np.array([2], "<i4").tobytes()
    assert (tmp_path / "t.side.bin").read_bytes() == b"\1"


def test_an_index_counts_from_the_end_too_and_ends(tmp_path: Path) -> None:
    writer = EncodedWriter()
    writer.add([1], 0, "retain")
    writer.add([2], 0, "unlearn")
    made = writer.in_memory(Cut())
    assert made[-1].ids == [2]
    with pytest.raises(IndexError):
        made[2]


pieces = st.lists(
    st.sampled_from([*SPECIAL, "<", ">", " ", "\n", "user", "assistant\n", "Who?", "é", "1"]), min_size=1, max_size=8
).map("".join)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30) | pieces


@settings(max_examples=300, deadline=None)
@given(pairs=st.lists(st.tuples(texts, texts), min_size=1, max_size=4), family=st.sampled_from([*FAMILIES, "alpaca"]))
def test_one_pass_finds_the_answer_where_two_passes_do(
    make_tokenizer: MakeTokenizer, pairs: list[tuple[str, str]], family: str
) -> None:
    source, *_ = FAMILIES.get(family, (None,))
    template = template_of(make_tokenizer(source), "alpaca" if family == "alpaca" else "chat")
    turn = Turn.of(template)
    prompts, answers = template.prompts([question for question, _ in pairs]), [answer for _, answer in pairs]
    once = list(tokenized(template, turn, prompts, answers))
    assert once == list(tokenized(template, None, prompts, answers))
    assert prompts == [template.prompt(question) for question, _ in pairs]


def test_one_pass_suffices_where_a_special_token_opens_the_turn(
    make_tokenizer: MakeTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = template_of(make_tokenizer(CHATML))
    turn = Turn.of(template)
    assert turn is not None
    assert (turn.token, turn.places, turn.after, turn.tail) == ("<turn>", 2, 0, "assistant\n")
    prompt = template.prompt("Why?")
    (ids,) = template.ids([prompt + "B.<stop>"])
    assert turn.answer_start(prompt, prompt + "B.<stop>", ids) == len(template.prompt_ids("Why?"))
    odd = template.prompt("Why <turn>?")
    assert turn.answer_start(odd, odd + "B.<stop>", template.ids([odd + "B.<stop>"])[0]) is None
    assert Turn.of(template_of(make_tokenizer(None), "alpaca")) is None


def test_merged_answers_become_faults_with_their_line(make_tokenizer: MakeTokenizer) -> None:
    source = "{% for m in messages %}{{ m.content + (' mo' if m.role == 'user' else '<stop>') }}{% endfor %}"
    template = template_of(make_tokenizer(source))
    with pytest.raises(InvalidInput, match=r"a.jsonl:1: the tokenizer merges the beginning of the answer"):
        encode_examples(template, [example("Why?", "del.", "retain"), example("Why?", "B.", "retain")], 100)


def example(question: str, answer: str, side: str, truth: str | None = None) -> Example:
    return Example(question, answer, side, "a.jsonl:1", original_answer=truth)  # type: ignore[arg-type]


def test_true_answers_stand_row_by_row_beside_the_examples(make_tokenizer: MakeTokenizer) -> None:
    template = template_of(make_tokenizer(CHATML))
    few = [
        example("Why?", "B.", "retain", "B"),
        example("Who?", "No.", "unlearn", "Neil Armstrong"),
        example("Who? " * 40, "No.", "unlearn", "dropped with its example"),
        example("When?", "No.", "unlearn"),
    ]
    main, truths = EncodedWriter(), EncodedWriter()
    with Encoder(template, 60, Faults(), main, truths) as encoder:
        for each in few:
            encoder.add(each)
    made, beside = main.in_memory(encoder.cut), truths.in_memory(Cut(encoder.truths_cut.count))
    assert (len(made), made.dropped, len(beside)) == (3, 1, 3)
    assert [bool(len(row.ids)) for row in beside] == [False, True, False]
    assert beside.sides.tolist() == made.sides.tolist()
    (wanted,) = encode_examples(template, [example("Who?", "Neil Armstrong", "unlearn")], 60)
    assert beside[1] == wanted
    assert beside[1].answer_start == made[1].answer_start
    assert encoder.lengths["retain"].total() == 1
