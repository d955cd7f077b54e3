import subprocess
import sys
import threading
import time

import pytest

from cutoff.llama_cpp import concurrently


def test_every_item_is_worked_on_once() -> None:
    assert sorted(concurrently(lambda item: item * 2, [1, 2, 3, 4, 5], 3)) == [(0, 2), (1, 4), (2, 6), (3, 8), (4, 10)]


def test_nothing_to_do() -> None:
    assert list(concurrently(lambda item: item, [], 4)) == []


def test_no_more_than_the_workers_run_at_once() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def work(item: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1
        return item

    list(concurrently(work, range(12), 3))
    assert most == 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_in_a_worker_is_not_waited_for_for_ever() -> None:
    with pytest.raises(RuntimeError, match="worker"):
        list(concurrently(lambda item: 1 // item, [1, 0, 2], 2))


def test_nothing_is_begun_once_the_consumer_stopped() -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        time.sleep(0.02)
        return item

    for _ in concurrently(work, range(100), 2):
        break
    time.sleep(0.1)
    assert len(begun) < 10


def test_an_interpreter_does_not_wait_for_workers_when_it_ends() -> None:
    code = """
import time
from cutoff.llama_cpp.concurrently import concurrently
for _ in concurrently(lambda s: time.sleep(s), [0, 60], 2):
    break
"""
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
    assert time.monotonic() - started < 20
