"""What runs logged, read while it is written."""

import asyncio

from cutoff.coordinator.run_logs import Tail, read_logs
from cutoff.v1 import job_pb2

Attempt = job_pb2.Attempt


def job(*attempts, state=job_pb2.Job.STATE_RUNNING):
    made = job_pb2.Job(name="jobs/j", state=state)
    for stage, number, state_of in attempts:
        made.attempts.add(key={"job": "j", "stage": stage, "attempt": number}, state=state_of)
    return made


def write(artifacts, stage, attempt, text, name="log.txt"):
    path = artifacts / f"jobs/j/{stage}/{attempt}/{name}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(text)
    return path


async def lines(*arguments, **options):
    return [
        f"{key.stage}/{key.attempt} {line}" async for key, found in read_logs(*arguments, **options) for line in found
    ]


def test_a_tail_gives_whole_lines_and_the_last_without_an_end(tmp_path):
    path = write(tmp_path, "train", 1, "one\ntw")
    tail = Tail(path)
    assert tail.news() == ["one"]
    assert tail.news() == []
    write(tmp_path, "train", 1, "o\nthree")
    assert tail.news() == ["two"]
    assert tail.news(at_end=True) == ["three"]
    assert tail.news(at_end=True) == []
    assert Tail(tmp_path / "none").news(at_end=True) == []


def test_a_tail_of_one_line_without_an_end(tmp_path):
    assert Tail(write(tmp_path, "train", 1, "only")).news(at_end=True) == ["only"]


def test_a_file_that_was_cut_off_is_read_from_its_beginning(tmp_path):
    path = write(tmp_path, "train", 1, "a long first line\n")
    tail = Tail(path)
    tail.news()
    path.write_text("new\n")
    assert tail.news() == ["new"]


def test_bytes_that_are_no_text_and_lines_without_end(tmp_path):
    path = tmp_path / "log.txt"
    path.write_bytes(b"\xff\n" + b"x" * 300_000)
    tail = Tail(path)
    assert tail.news() == ["\ufffd"]
    assert tail.news() == ["x" * 300_000]


def test_attempts_in_their_order_and_one_stage_only(tmp_path):
    over = job(
        ("train", 1, Attempt.STATE_FAILED),
        ("train", 2, Attempt.STATE_SUCCEEDED),
        ("merge", 1, Attempt.STATE_SUCCEEDED),
        state=job_pb2.Job.STATE_SUCCEEDED,
    )
    write(tmp_path, "train", 1, "a\n")
    write(tmp_path, "train", 2, "b\n")
    write(tmp_path, "train", 2, "earlier\n", "log.1.txt")
    write(tmp_path, "merge", 1, "c\n")
    assert asyncio.run(lines(lambda: over, tmp_path)) == ["train/1 a", "train/2 earlier", "train/2 b", "merge/1 c"]
    assert asyncio.run(lines(lambda: over, tmp_path, "merge")) == ["merge/1 c"]


def test_following_ends_with_the_job_and_goes_on_with_its_next_attempt(tmp_path, monkeypatch):
    monkeypatch.setattr("cutoff.coordinator.run_logs._PAUSE", 0.01)
    write(tmp_path, "train", 1, "one\n")
    now = [job(("train", 1, Attempt.STATE_RUNNING))]

    async def main():
        following = asyncio.create_task(lines(lambda: now[0], tmp_path, follow=True))
        await asyncio.sleep(0.05)
        write(tmp_path, "train", 1, "two")
        now[0] = job(("train", 1, Attempt.STATE_FAILED), ("train", 2, Attempt.STATE_RUNNING))
        await asyncio.sleep(0.05)
        assert not following.done()
        write(tmp_path, "train", 2, "three\n")
        now[0] = job(
            ("train", 1, Attempt.STATE_FAILED), ("train", 2, Attempt.STATE_SUCCEEDED), state=job_pb2.Job.STATE_SUCCEEDED
        )
        return await asyncio.wait_for(following, 5)

    assert asyncio.run(main()) == ["train/1 one", "train/1 two", "train/2 three"]
