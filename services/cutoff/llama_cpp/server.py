"""Runs llama-server on a free loopback port for as long as a block of code needs it."""

from __future__ import annotations

import http.client
import math
import os
import secrets
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from cutoff.errors import CutoffError, Unavailable
from cutoff.llama_cpp.chat import ChatClient, Completion, Message, RequestFailed
from cutoff.llama_cpp.location import LlamaCpp
from cutoff.llama_cpp.programs import failure, stop
from cutoff.process import tethered

_POLL = 0.05
_PORT_TAKEN = "couldn't bind"
_STARTS = 3
_DYING = 2.0
"""Seconds that a server that lost a connection gets to turn out dead."""

_REMEDIES = {
    "failed to load model": "the GGUF may be damaged, or made for another version of llama.cpp: convert again",
    "failed to create context": "memory ran out for the context: close other programs or take a smaller model",
}


class _Log:
    """What the server says. Request threads may still read it when the block that made it ends."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._lock = threading.Lock()

    def close(self) -> None:
        with self._lock:
            self._file.close()

    def tail(self, lines: int = 15) -> list[str]:
        """The last lines. Read by position: the server writes through the same file offset."""
        with self._lock:
            if self._file.closed:
                return []
            size = os.fstat(self._file.fileno()).st_size
            text = os.pread(self._file.fileno(), 16_384, max(0, size - 16_384)).decode(errors="replace")
        return [line for line in text.splitlines() if line.strip()][-lines:]


@dataclass(frozen=True, slots=True)
class Predicted:
    """The next token of a text, as a model sees it before any sampling."""

    token: int
    """The most likely one's id."""
    logprobs: Mapping[int, float]
    """Log probabilities (nats) of the most likely tokens by id; not a number where the model computes none.

    Empty where the most likely token is part of a character that is not whole yet: llama-server tells none there.
    """


class LlamaServer:
    """A running llama-server with one model."""

    def __init__(self, client: ChatClient, slots: int, process: subprocess.Popen[str], log: _Log) -> None:
        self.slots = slots
        self._client = client
        self._root = client.url.removesuffix("/v1")
        self._process = process
        self._log = log

    def complete(self, messages: Sequence[Message], max_tokens: int) -> Completion:
        """Asks for the most likely answer through the GGUF's own chat template; may be called from threads.

        Raises:
            RequestFailed: The server refused, for example because the question is longer than its context.
            ProgramFailed, OutOfMemory: The server died; with the end of its log.
        """
        try:
            return self._client.complete(messages, max_tokens)
        except Unavailable as error:
            self.raise_if_dead(error)
            raise

    def go_on(self, messages: Sequence[Message], begun: str, max_tokens: int) -> Completion:
        """The most likely end of an answer that begins with `begun`, which the completion does not repeat.

        Over the native API: what the chat API makes of an unfinished answer depends on the version of llama.cpp. A
        thinking block that the template opens is closed first.

        Raises:
            RequestFailed, ProgramFailed, OutOfMemory: As `complete`.
        """
        prompt = self.apply_template(messages)
        lead = "\n</think>\n\n" if prompt.rstrip().endswith("<think>") else ""
        body = {"prompt": f"{prompt}{lead}{begun}", "n_predict": max_tokens, "temperature": 0, "stream": False}
        answer = self._post("completion", body)
        try:
            reason = "length" if answer["stop_type"] == "limit" else "stop"
            return Completion(str(answer["content"]), reason, int(answer.get("tokens_predicted") or 0))
        except (KeyError, TypeError, ValueError) as error:
            raise RequestFailed(f"llama-server answered without a completion: {str(answer)[:200]}") from error

    def tokenize(self, text: str, add_special: bool) -> list[int]:
        """The ids of a text; special tokens in it are recognised.

        Args:
            text: The text.
            add_special: Put a BOS token in front where the GGUF says so, as llama-server does with every prompt.

        Raises:
            RequestFailed, ProgramFailed, OutOfMemory: As `complete`.
        """
        answer = self._post("tokenize", {"content": text, "add_special": add_special, "parse_special": True})
        return [int(token) for token in answer["tokens"]]

    def apply_template(self, messages: Sequence[Message]) -> str:
        """The prompt that the GGUF's chat template makes of messages, the answer's beginning included.

        Raises:
            RequestFailed, ProgramFailed, OutOfMemory: As `complete`.
        """
        return str(self._post("apply-template", {"messages": list(messages)})["prompt"])

    def predict(self, ids: Sequence[int], tokens: int, candidates: int) -> list[Predicted]:
        """Goes on from a text with the most likely token each time, up to the end of the turn.

        Args:
            ids: The text; nothing is added to it.
            tokens: How many new ones at most.
            candidates: How many of the most likely next tokens are told at each place.

        Raises:
            RequestFailed, ProgramFailed, OutOfMemory: As `complete`.
        """
        text, steps = list(ids), []
        for _ in range(tokens):  # one at a time: of several, the places without probabilities could not be told
            body = {"prompt": text, "n_predict": 1, "n_probs": candidates, "temperature": 0, "return_tokens": True}
            answer = self._post("completion", body)
            if not answer["tokens"]:
                break
            told = {
                int(each["id"]): _number(each["logprob"])
                for place in answer.get("completion_probabilities", [])
                for each in place["top_logprobs"]
            }
            steps.append(Predicted(int(answer["tokens"][0]), told))
            if answer["stop_type"] == "eos":
                break
            text.append(steps[-1].token)
        return steps

    def raise_if_dead(self, cause: CutoffError | None = None) -> None:
        """Raises what the server died of, if it did.

        Raises:
            ProgramFailed, OutOfMemory: With the end of its log.
        """
        try:  # a connection breaks a moment before the process that held it can be waited for
            code = self._process.wait(_DYING if cause else 0)
        except subprocess.TimeoutExpired:
            return
        raise failure("llama-server", code, self._log.tail(), _REMEDIES) from cause

    def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        try:
            return self._client.request("POST", f"{self._root}/{path}", body)
        except Unavailable as error:
            self.raise_if_dead(error)
            raise


@contextmanager
def serve(
    llama: LlamaCpp,
    gguf: Path,
    context: int,
    slots: int = 1,
    threads: int | None = None,
    devices: Sequence[str] = (),
    start_timeout: float = 900.0,
) -> Iterator[LlamaServer]:
    """Starts llama-server, waits until the model is loaded, and stops it in every case.

    Call it from the main thread: the server is tied to the thread that starts it.

    Args:
        llama: The llama.cpp to use.
        gguf: The model.
        context: Tokens a slot holds, prompt and answer together; capped at what the model was trained for.
        slots: How many requests are answered at once.
        threads: Threads for inference; by default one per core this process may use.
        devices: As torch names them ("cuda:0"); empty means the CPU.
        start_timeout: Seconds until the model must be loaded.

    Raises:
        ProgramFailed, OutOfMemory: The server ended instead of serving; with the end of its log.
        Unavailable: The model was not loaded in time.
    """
    key = secrets.token_hex(16)  # other users of the host can reach the port, but not read the environment
    cores = threads or len(os.sched_getaffinity(0))
    command = _command(llama, gguf, context, slots, cores, devices)
    environment = {**os.environ, **_visible(devices), "LLAMA_API_KEY": key}
    with tempfile.TemporaryFile() as file, closing(_Log(file)) as log:
        for start in range(1, _STARTS + 1):
            port = _free_port()
            process = _start([*command, "--port", str(port)], environment, file)
            try:
                if not _wait_until_ready(process, port, log, time.monotonic() + start_timeout, last=start == _STARTS):
                    continue  # another process took the port in between
                with ChatClient(f"http://127.0.0.1:{port}/v1", gguf.name, key, connections=slots) as client:
                    yield LlamaServer(client, slots, process, log)
                return
            finally:
                stop(process)


def _number(value: float | None) -> float:
    """JSON has no "not a number": llama-server writes null."""
    return math.nan if value is None else float(value)


def _command(llama: LlamaCpp, gguf: Path, context: int, slots: int, threads: int, devices: Sequence[str]) -> list[str]:
    places = ["--gpu-layers", "999"] if devices else ["--device", "none"]
    return [
        *(str(llama.server), "--model", str(gguf), *places),
        *("--host", "127.0.0.1", "--parallel", str(slots), "--ctx-size", str(slots * context)),
        # Threads that wait for work must not spin: the cores belong to others too.
        *("--threads", str(threads), "--poll", "0"),
        # Answers come as the model gives them, thoughts and what looks like a tool call included, as they do in
        # transformers. Not looking for such things takes a quarter off the processor time of a small model.
        *("--jinja", "--reasoning-format", "none", "--skip-chat-parsing"),
        # No pages for a browser, no fetching, and no cache of 8 GiB for prompts that never come again.
        *("--no-webui", "--offline", "--no-slots", "--no-warmup", "--cache-ram", "0"),
    ]


def _visible(devices: Sequence[str]) -> dict[str, str]:
    """Shows the server only the run's devices; torch counts among those this process itself may see."""
    if not devices:
        return {}
    variables = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
    seen = next((os.environ[name].split(",") for name in variables if os.environ.get(name)), None)
    indices = [int(device.partition(":")[2] or 0) for device in devices]
    chosen = ",".join(seen[index] if seen else str(index) for index in indices)
    return dict.fromkeys(variables, chosen)


def _start(command: Sequence[str], environment: Mapping[str, str], log: IO[bytes]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        tethered(command),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
        text=True,
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(process: subprocess.Popen[str], port: int, log: _Log, deadline: float, last: bool) -> bool:
    """Waits until the model is loaded; False when the port was taken and another start may be tried."""
    while time.monotonic() < deadline:
        code = process.poll()
        if code is not None:
            tail = log.tail()
            if any(_PORT_TAKEN in line for line in tail) and not last:
                return False
            raise failure("llama-server", code or 1, tail, _REMEDIES)
        if _healthy(port):
            return True
        time.sleep(_POLL)
    raise Unavailable("llama-server did not load the model in time; its last lines:\n" + "\n".join(log.tail()))


def _healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.HTTPStatus.OK  # 503 while the model loads
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
