import signal
import sys
import time
from pathlib import Path

import pytest

from cutoff.errors import DiskFull, OutOfMemory, ProgramFailed
from cutoff.llama_cpp import run_program
from cutoff.llama_cpp.programs import failure


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_lines_come_as_they_are_written_and_a_carriage_return_ends_one() -> None:
    lines: list[str] = []
    run_program(
        python(r"print('a\r b\r\nc', flush=True); import sys; print('err', file=sys.stderr)"), "x", lines.append
    )
    assert lines == ["a", "b", "c", "err"]


def test_what_there_is_of_a_line_is_heard_before_it_ends() -> None:
    heard: list[str] = []
    code = r"""
import sys
for part in ("[1]4.5,", "[2]4.4,\n", "é"[:1], "\n\n", "last"):
    sys.stdout.buffer.write(part.encode())
    sys.stdout.flush()
    import time; time.sleep(0.3)
"""
    run_program(python(code), "x", lambda line: heard.append(f"line {line}"), on_part=lambda part: heard.append(part))
    assert heard[:2] == ["[1]4.5,", "line [1]4.5,[2]4.4,"]
    assert [line for line in heard if line.startswith("line")] == ["line [1]4.5,[2]4.4,", "line é", "line last"]


def test_a_character_that_comes_in_two_pieces_is_one() -> None:
    lines: list[str] = []
    code = r"""
import sys, time
for piece in ("é".encode()[:1], "é".encode()[1:], b"\xff"):
    sys.stdout.buffer.write(piece)
    sys.stdout.flush()
    time.sleep(0.2)
"""
    run_program(python(code), "x", lines.append)
    assert lines == ["é\ufffd"]


def test_variables_are_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEPT", "1")
    lines: list[str] = []
    code = "import os; print(os.environ['KEPT'] + os.environ['ADDED'])"
    run_program(python(code), "x", lines.append, {"ADDED": "2"})
    assert lines == ["12"]


def test_a_failure_repeats_the_last_lines_and_says_what_to_do() -> None:
    code = "print('first'); [print('line', n) for n in range(40)]; print('no such tokenizer'); raise SystemExit(3)"
    with pytest.raises(ProgramFailed) as caught:
        run_program(python(code), "converting", lambda line: None, remedies={"no such tokenizer": "take another"})
    assert "converting ended with exit code 3" in caught.value.message
    assert "no such tokenizer" in caught.value.message
    assert "first" not in caught.value.message
    assert caught.value.remedy == "take another"


def test_sigkill_is_out_of_memory() -> None:
    with pytest.raises(OutOfMemory, match="converting was killed"):
        run_program(python("import os; os.kill(os.getpid(), 9)"), "converting", lambda line: None)


@pytest.mark.parametrize(
    ("code", "said", "expected"),
    [
        (-signal.SIGKILL, "", OutOfMemory),
        (1, "terminate called: std::bad_alloc", OutOfMemory),
        (1, "CUDA error: Out of memory", OutOfMemory),
        (1, "OSError: [Errno 28] No space left on device", DiskFull),
        (1, "OSError: 196608 requested and 140240 written", DiskFull),
        (1, "llama_model_quantize: failed to quantize: basic_ios::clear: iostream error", DiskFull),
        (-signal.SIGSEGV, "", ProgramFailed),
        (1, "anything else", ProgramFailed),
    ],
)
def test_what_a_program_died_of(code: int, said: str, expected: type[Exception]) -> None:
    error = failure("it", code, [said], {})
    assert type(error) is expected
    assert error.remedy


def test_a_signal_is_named() -> None:
    assert "SIGSEGV" in failure("it", -signal.SIGSEGV, [], {}).message


def test_an_interrupted_run_leaves_no_process(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    # The program and one it started both write to the file for ever.
    beat = f"import time\nwhile True: open({str(alive)!r}, 'a').write('x'); time.sleep(0.01)"
    code = (
        f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {beat!r}]); print('up', flush=True)\n{beat}"
    )

    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_program(python(code), "x", interrupt)
    time.sleep(0.1)
    size = alive.stat().st_size if alive.exists() else 0
    time.sleep(0.3)
    assert (alive.stat().st_size if alive.exists() else 0) == size
