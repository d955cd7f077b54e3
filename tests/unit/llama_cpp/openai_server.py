"""A small real HTTP server that speaks the chat protocol, or misbehaves as told."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

Answer = Callable[[dict[str, Any]], tuple[int, Any]]


class OpenAi:
    """Answers what `answer` says: (status, JSON value or raw text) for the body of a chat request."""

    def __init__(self) -> None:
        self.models: Any = {"object": "list", "data": [{"id": "temporal-unlearn"}, {"id": "other"}]}
        self.answer: Answer = lambda body: (200, reply("I don't know.", body["max_tokens"]))
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def reply(text: Any, tokens: int = 3, finish: str = "stop") -> dict[str, Any]:
    return {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}],
        "usage": {"completion_tokens": tokens},
    }


def _handler(owner: OpenAi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(*((200, owner.models) if self.path == "/v1/models" else (404, {"error": "no such path"})))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            owner.requests.append(body)
            owner.headers.append(dict(self.headers))
            self._send(*owner.answer(body))

        def _send(self, status: int, content: Any) -> None:
            data = (content if isinstance(content, str) else json.dumps(content)).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            pass

    return Handler


@pytest.fixture
def openai() -> Iterator[OpenAi]:
    server = OpenAi()
    yield server
    server.close()
