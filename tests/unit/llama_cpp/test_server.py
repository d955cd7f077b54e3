import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cutoff.errors import OutOfMemory, ProgramFailed, Unavailable
from cutoff.llama_cpp import LlamaCpp, LlamaServer, RequestFailed, serve
from cutoff.llama_cpp import server as server_module


@pytest.fixture(scope="module")
def server(llama: LlamaCpp, tiny_f16: Path) -> Iterator[LlamaServer]:
    with serve(llama, tiny_f16, 256, slots=2, threads=1) as running:
        yield running


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


def test_special_tokens_are_recognised_and_the_template_is_the_models(server: LlamaServer) -> None:
    prompt = server.apply_template([{"role": "user", "content": "Who?"}])
    assert prompt == "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n"
    assert server.tokenize("<|im_start|>", add_special=True) == [4]


def test_a_question_longer_than_the_context_is_refused_and_the_server_lives_on(server: LlamaServer) -> None:
    with pytest.raises(RequestFailed, match="context"):
        server.complete([{"role": "user", "content": "bridge " * 2000}], 8)
    assert server.complete([{"role": "user", "content": "Who?"}], 4).tokens <= 4


def test_the_key_keeps_others_out(server: LlamaServer) -> None:
    import requests

    url = f"{server._root}/v1/chat/completions"
    assert requests.post(url, json={"messages": []}, timeout=5).status_code == 401


def test_the_server_stops_with_its_block_whatever_ends_it(llama: LlamaCpp, tiny_f16: Path) -> None:
    class Cancelled(BaseException):
        pass

    with pytest.raises(Cancelled), serve(llama, tiny_f16, 256) as running:
        pid = running._process.pid
        raise Cancelled
    assert gone(pid)


def test_a_server_that_was_killed_is_reported_as_such(llama: LlamaCpp, tiny_f16: Path) -> None:
    with serve(llama, tiny_f16, 256) as running:
        os.kill(running._process.pid, signal.SIGKILL)
        with pytest.raises(OutOfMemory, match="llama-server was killed"):
            running.complete([{"role": "user", "content": "Who?"}], 4)


def test_a_damaged_model_is_reported_with_the_end_of_the_log(llama: LlamaCpp, tiny_f16: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(tiny_f16.read_bytes()[:-5000])
    with pytest.raises(ProgramFailed, match="corrupted or incomplete") as caught, serve(llama, cut, 256):
        pytest.fail("it must not serve")
    assert "convert again" in caught.value.remedy


def test_a_port_that_was_taken_in_between_is_given_up(
    llama: LlamaCpp, tiny_f16: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        free = server_module._free_port()
        ports = iter([int(other.getsockname()[1]), free])
        monkeypatch.setattr(server_module, "_free_port", lambda: next(ports))
        # The other process answers nothing; only llama-server's own end tells.
        with serve(llama, tiny_f16, 256) as running:
            assert running._root.endswith(f":{free}")


def test_a_model_that_does_not_load_in_time_is_given_up(llama: LlamaCpp, tiny_f16: Path) -> None:
    with pytest.raises(Unavailable, match="in time"), serve(llama, tiny_f16, 256, start_timeout=0.0):
        pytest.fail("it must not serve")


@pytest.mark.parametrize(
    ("seen", "devices", "expected"),
    [
        (None, ("cuda:1",), "1"),
        (None, ("cuda",), "0"),
        ("3,5", ("cuda:1",), "5"),
        ("3,5", ("cuda:0", "cuda:1"), "3,5"),
    ],
)
def test_the_server_sees_only_the_runs_devices(
    seen: str | None, devices: tuple[str, ...], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HIP_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if seen:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
    assert server_module._visible(devices)["CUDA_VISIBLE_DEVICES"] == expected


def test_a_cpu_run_leaves_devices_alone(llama: LlamaCpp) -> None:
    assert server_module._visible(()) == {}
    assert "none" in server_module._command(llama, Path("x"), 256, 1, 1, ())
