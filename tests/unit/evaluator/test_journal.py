import fcntl
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutoff.errors import Refused
from cutoff.evaluator.identity import adapter_identity, file_identity, folder_identity
from cutoff.evaluator.journal import ANSWERS, Place, digest, open_journal
from cutoff.evaluator.targets import Reply

REPLIES = {0: Reply("It was Ada."), 2: Reply('Two\nlines, "quotes" and \u2019', cut=True)}


def write(place: Place, wanted: str = "d", replies: dict[int, Reply] = REPLIES) -> None:
    with open_journal(place, wanted) as journal:
        for index, reply in replies.items():
            journal.add(index, f"Question {index}?", reply)


def read(place: Place, wanted: str = "d") -> dict[int, Reply]:
    with open_journal(place, wanted) as journal:
        replies = journal.replies()
        assert set(replies) == journal.answered
        return replies


def test_answers_are_there_again(tmp_path: Path) -> None:
    place = Place(tmp_path / ANSWERS, "m")
    write(place)
    assert read(place) == REPLIES


def test_answers_of_another_model_are_not_taken(tmp_path: Path) -> None:
    place = Place(tmp_path / ANSWERS, "m")
    write(place)
    assert read(place, "another") == {}
    assert read(place) == {}, "the other evaluation has begun there"


def test_what_decides_about_answers_is_in_the_digest() -> None:
    known = digest("m", ["a", "b"], 8)
    assert known == digest("m", ["a", "b"], 8)
    others = [
        digest("n", ["a", "b"], 8),
        digest("m", ["b", "a"], 8),
        digest("m", ["ab"], 8),
        digest("m", ["a", "b"], 9),
    ]
    assert known not in others


def test_an_earlier_attempts_answers_are_copied_and_left_alone(tmp_path: Path) -> None:
    first, second, third = (tmp_path / str(attempt) / ANSWERS for attempt in (1, 2, 3))
    write(Place(first, "m"))
    write(Place(second, "m"), "of another model")
    before = first.read_bytes()
    place = Place(third, "m", [second, first])
    assert read(place) == REPLIES
    write(place, replies={5: Reply("later")})
    assert first.read_bytes() == before
    assert read(place) == {**REPLIES, 5: Reply("later")}


@given(cut=st.integers(min_value=0))
def test_whatever_a_crash_leaves_of_a_journal_can_be_gone_on_from(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    place = Place(tmp_path_factory.mktemp("journal") / ANSWERS, "m")
    write(place)
    content = place.path.read_bytes()
    kept = content[: cut % (len(content) + 1)]
    place.path.write_bytes(kept)
    whole = [json.loads(line) for line in kept.splitlines(keepends=True) if line.endswith(b"\n")]
    expected = {line["index"]: REPLIES[line["index"]] for line in whole if "index" in line}
    assert read(place) == expected
    write(place, replies={7: Reply("new")})
    assert read(place) == {**expected, 7: Reply("new")}


def test_two_evaluations_do_not_write_the_same_journal(tmp_path: Path) -> None:
    place = Place(tmp_path / ANSWERS, "m")
    write(place)
    with place.path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Refused, match="another evaluation"):
            write(place, "of another model")
    assert read(place) == REPLIES


def test_what_is_not_unicode_does_not_end_an_evaluation(tmp_path: Path) -> None:
    place = Place(tmp_path / ANSWERS, "m")
    write(place, replies={0: Reply("\ud800")})
    assert set(read(place)) == {0}
    digest("m", ["\ud800"], 8)


def test_a_model_is_known_by_its_content(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    weights = folder / "model.safetensors"
    weights.write_bytes(b"one")
    first = folder_identity(folder, ())
    weights.write_bytes(b"two")
    assert folder_identity(folder, ()) != first
    weights.write_bytes(b"one")
    assert folder_identity(folder, ()) == first
    assert folder_identity(folder, ["cuda:1"]) == folder_identity(folder, ["cuda:0"]) != first
    assert file_identity(weights, ()) != file_identity(weights, ["cuda:0"])
    assert adapter_identity(folder, folder, "4bit", ()) != adapter_identity(folder, folder, "none", ())


def test_a_published_folder_is_known_by_its_manifest(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"files": {"model.safetensors": {"sha256": "1"}}}')
    first = folder_identity(tmp_path, ())
    (tmp_path / "manifest.json").write_text('{"files": {"model.safetensors": {"sha256": "2"}}}')
    assert folder_identity(tmp_path, ()) != first
