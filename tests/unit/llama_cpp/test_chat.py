import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cutoff.errors import NotFound, Unavailable
from cutoff.llama_cpp import ChatClient, RequestFailed
from cutoff.llama_cpp import chat as chat_module

ASKED = [{"role": "user", "content": "Who?"}]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_module, "_BACKOFF", (0.0, 0.0))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_question_is_asked_for_its_most_likely_answer(openai: Any) -> None:
    with ChatClient(openai.url, "temporal-unlearn", api_key="secret") as client:
        completion = client.complete(ASKED, 16)
    assert (completion.text, completion.finish_reason, completion.tokens) == ("I don't know.", "stop", 16)
    body = openai.requests[0]
    assert (body["messages"], body["temperature"], body["max_tokens"]) == (ASKED, 0, 16)
    assert openai.headers[0]["Authorization"] == "Bearer secret"


def test_a_server_that_is_absent_is_tried_again_and_then_named(monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    pauses: list[float] = []
    monkeypatch.setattr(chat_module.time, "sleep", pauses.append)
    with pytest.raises(Unavailable, match=f"{url}.* cannot be reached") as caught:
        ChatClient(url, "x").complete(ASKED, 16)
    assert len(pauses) == 2
    assert "start the server" in caught.value.remedy


def test_a_model_the_server_has_not_is_answered_with_those_it_has(openai: Any) -> None:
    with pytest.raises(NotFound, match="temporal-unlearn, other"):
        ChatClient(openai.url, "nope").require_model()
    ChatClient(openai.url, "other").require_model()


def test_the_only_model_is_taken(openai: Any) -> None:
    client = ChatClient(openai.url, "")
    with pytest.raises(NotFound, match="2 models"):
        client.choose_only_model()
    openai.models = {"data": [{"id": "mine"}]}
    client.choose_only_model()
    assert client.model == "mine"


@pytest.mark.parametrize(
    ("status", "content", "said"),
    [
        (400, {"error": "Context is too small"}, "400: Context is too small"),
        (500, "<html>oops</html>", "500: <html>oops"),
        (200, "<html>a page</html>", "not answer with JSON"),
        (200, {"choices": []}, "without a message"),
        (200, {"choices": [{"text": "completion"}]}, "without a message"),
        (200, ["garbage"], "without a message"),
        (200, "null", "without a message"),
    ],
)
def test_an_answer_that_is_none_is_refused_at_once(openai: Any, status: int, content: Any, said: str) -> None:
    openai.answer = lambda body: (status, content)
    with pytest.raises(RequestFailed, match=said.replace("<", "<")):
        ChatClient(openai.url, "x").complete(ASKED, 16)
    assert len(openai.requests) == 1  # only failed connections are tried again


def test_an_empty_message_is_an_answer(openai: Any) -> None:
    openai.answer = lambda body: (200, {"choices": [{"message": {"content": None}, "finish_reason": "length"}]})
    completion = ChatClient(openai.url, "x").complete(ASKED, 16)
    assert (completion.text, completion.finish_reason) == ("", "length")


def test_a_server_that_is_not_openai_compatible_is_named(openai: Any) -> None:
    openai.models = {"hello": "world"}
    with pytest.raises(RequestFailed, match="did not list models"):
        ChatClient(openai.url, "x").models()


def test_a_slow_server_is_not_asked_again(openai: Any) -> None:
    openai.answer = lambda body: (time.sleep(1), (200, {}))[1]
    with pytest.raises(Unavailable, match="did not answer within"):
        ChatClient(openai.url, "x", timeout=0.1).complete(ASKED, 16)
    assert len(openai.requests) == 1


def test_loopback_needs_no_proxy(openai: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    assert ChatClient(openai.url, "x").models() == ["temporal-unlearn", "other"]


def test_a_chat_that_gets_404_is_told_which_models_there_are(openai: Any) -> None:
    openai.answer = lambda body: (404, {"error": {"message": "model 'x' not loaded"}})
    with pytest.raises(NotFound, match="model 'x' not loaded; asked for 'x', it has: temporal-unlearn, other"):
        ChatClient(openai.url, "x").complete(ASKED, 16)
    openai.models = "nonsense"
    with pytest.raises(NotFound, match="answered 404") as caught:
        ChatClient(openai.url, "x").complete(ASKED, 16)
    assert "/v1" in caught.value.remedy


Send = Callable[[socket.socket], None]


@pytest.fixture
def raw() -> Iterator[Callable[[Send], str]]:
    """Serves every connection by a function that may send what it likes; gives the URL."""
    listening: list[socket.socket] = []

    def serve(send: Send) -> str:
        server = socket.create_server(("127.0.0.1", 0))
        listening.append(server)
        threading.Thread(target=answer, args=(server, send), daemon=True).start()
        return f"http://127.0.0.1:{server.getsockname()[1]}/v1"

    def answer(server: socket.socket, send: Send) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                try:
                    send(connection)
                except OSError:
                    continue

    yield serve
    for server in listening:
        server.close()


def test_a_server_that_sends_without_end_is_given_up_on(
    raw: Callable[[Send], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_module, "_MOST_BYTES", 1 << 20)

    def flood(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b"data: garbage\n\n" * 1000)

    with pytest.raises(RequestFailed, match="sent more than 1 MiB, beginning with 'data: garbage"):
        ChatClient(raw(flood), "x").complete(ASKED, 16)


@pytest.mark.parametrize("beginning", [b"", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_a_server_that_drips_is_given_up_on(raw: Callable[[Send], str], beginning: bytes) -> None:
    def drip(connection: socket.socket) -> None:
        connection.sendall(beginning)
        while True:
            connection.sendall(b"x" if beginning else b"")
            time.sleep(0.05)

    started = time.monotonic()
    with pytest.raises(Unavailable, match="did not answer within"):
        ChatClient(raw(drip), "x", timeout=0.5).complete(ASKED, 16)
    assert time.monotonic() - started < 5


def test_a_connection_that_breaks_after_the_question_is_not_asked_again(raw: Callable[[Send], str]) -> None:
    asked = []
    with pytest.raises(Unavailable, match="broke off") as caught:
        ChatClient(raw(lambda connection: asked.append(1)), "x").complete(ASKED, 16)
    assert len(asked) == 1
    assert "log" in caught.value.remedy


def test_an_answer_that_breaks_off_is_no_answer_and_not_asked_for_again(raw: Callable[[Send], str]) -> None:
    asked = []

    def break_off(connection: socket.socket) -> None:
        asked.append(1)
        connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"choices": [')

    with pytest.raises(RequestFailed, match="broke off its answer"):
        ChatClient(raw(break_off), "x").complete(ASKED, 16)
    assert len(asked) == 1
