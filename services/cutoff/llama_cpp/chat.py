"""A client for OpenAI-compatible chat servers: llama-server, LM Studio."""

from __future__ import annotations

import http
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from cutoff.errors import NotFound, ProgramFailed, Unavailable

Message = Mapping[str, str]
"""A chat message: role and content."""

_CONNECT_TIMEOUT = 5.0
_BACKOFF = (0.2, 0.5, 1.0)
"""Seconds before each retry of a request that got no connection."""

_MOST_BYTES = 16 << 20
"""No answer is longer; what goes on sending is no answer."""

_PIECE = 1 << 16
_HTTP_ERRORS = 400

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class RequestFailed(ProgramFailed):
    """The server answered, but not with what was asked for."""


class _NoSuchPath(RequestFailed):
    """It answered 404."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A server's answer to a chat."""

    text: str
    finish_reason: str
    """"stop" at the end token, "length" when max_tokens ran out."""
    tokens: int
    """How many tokens the answer has; 0 when the server does not say."""


class ChatClient:
    """Talks to one server; its methods may be called from several threads.

    Args:
        url: The base URL, "/v1" included.
        model: Which of the server's models; llama-server has one and ignores the name.
        api_key: Sent as a bearer token when given.
        connections: How many requests will be made at once.
        timeout: Seconds to wait for a whole answer once a request was sent.
    """

    def __init__(self, url: str, model: str, api_key: str = "", connections: int = 8, timeout: float = 600.0) -> None:
        self.url = url.rstrip("/")
        self.model = model
        self._timeout = (_CONNECT_TIMEOUT, timeout)
        self._session = requests.Session()
        self._session.mount("http://", HTTPAdapter(pool_maxsize=connections))
        # A proxy from the environment cannot reach this host's own loopback address.
        self._session.trust_env = urlsplit(url).hostname not in _LOOPBACK
        if api_key:
            self._session.headers["Authorization"] = f"Bearer {api_key}"

    def __enter__(self) -> ChatClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def complete(self, messages: Sequence[Message], max_tokens: int) -> Completion:
        """Asks for the most likely answer (temperature 0).

        Raises:
            Unavailable: No connection, or no answer in time.
            RequestFailed: An HTTP error, or an answer that is none.
            NotFound: The server answers 404; the models it has are listed.
        """
        body = {
            "model": self.model,
            "messages": list(messages),
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": False,
        }
        try:
            answer = self.request("POST", f"{self.url}/chat/completions", body)
        except _NoSuchPath as error:
            raise self._not_found(error) from error
        try:
            choice = answer["choices"][0]
            text = choice["message"]["content"] or ""
            tokens = int((answer.get("usage") or {}).get("completion_tokens") or 0)
            return Completion(str(text), str(choice.get("finish_reason") or ""), tokens)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            raise RequestFailed(f"{self.url} answered without a message: {str(answer)[:200]}") from error

    def models(self) -> list[str]:
        """The identifiers of the server's models.

        Raises:
            Unavailable: No connection, or no answer in time.
            RequestFailed: The server does not speak the protocol.
        """
        answer = self.request("GET", f"{self.url}/models")
        try:
            return [str(model["id"]) for model in answer["data"]]
        except (KeyError, TypeError) as error:
            raise RequestFailed(
                f"{self.url}/models did not list models: {str(answer)[:200]}",
                "give the URL of an OpenAI-compatible API; LM Studio's ends in /v1",
            ) from error

    def require_model(self) -> None:
        """Makes sure that the server has the model.

        Raises:
            Unavailable, RequestFailed: As `models`.
            NotFound: It has others; they are listed.
        """
        known = self.models()
        if self.model not in known:
            listed = ", ".join(known) or "none"
            raise NotFound(
                f"{self.url} has no model {self.model!r}; it has: {listed}",
                "name one of these, or load the model in LM Studio (`lms ps` lists loaded models)",
            )

    def choose_only_model(self) -> None:
        """Takes the server's model when it has exactly one.

        Raises:
            Unavailable, RequestFailed: As `models`.
            NotFound: It has none or several; they are listed.
        """
        known = self.models()
        if len(known) != 1:
            raise NotFound(
                f"{self.url} has {len(known)} models: {', '.join(known) or 'none'}",
                "say which one to ask (--lmstudio_model), or load it in LM Studio (`lms load`)",
            )
        self.model = known[0]

    def request(self, method: str, url: str, body: Any = None) -> Any:
        """Sends one request and returns the answer's JSON. Only a failed connection is tried again.

        Raises:
            Unavailable: No connection, or no answer in time.
            RequestFailed: An HTTP error, or an answer that is not JSON.
        """
        status, content = self._send(method, url, body)
        if status >= _HTTP_ERRORS:
            failed = _NoSuchPath if status == http.HTTPStatus.NOT_FOUND else RequestFailed
            raise failed(f"{url} answered {status}: {_reason(content)}")
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise RequestFailed(f"{url} did not answer with JSON but with: {_shown(content)!r}") from error

    def _not_found(self, error: _NoSuchPath) -> NotFound:
        """Why a chat got 404: most likely the model is not there, or not any more."""
        fix = "name one of its models, or load the model in LM Studio (`lms load`)"
        try:
            return NotFound(
                f"{error.message}; asked for {self.model!r}, it has: {', '.join(self.models()) or 'none'}", fix
            )
        except (RequestFailed, Unavailable):
            return NotFound(error.message, "give the URL of an OpenAI-compatible API; LM Studio's ends in /v1")

    def _send(self, method: str, url: str, body: Any) -> tuple[int, bytes]:
        """Status and content of the answer to a request."""
        for pause in (*_BACKOFF, None):
            try:
                # A redirect would lead to a server that nobody allowed.
                with self._session.request(
                    method, url, json=body, timeout=self._timeout, stream=True, allow_redirects=False
                ) as response:
                    return response.status_code, self._content(response, url)
            except (requests.ReadTimeout, urllib3.exceptions.ReadTimeoutError) as error:
                raise self._too_slow(url) from error
            except urllib3.exceptions.HTTPError as error:
                raise RequestFailed(f"{url} broke off its answer: {error}") from error
            except requests.ConnectionError as error:
                if not _never_sent(error):
                    raise Unavailable(f"{url} broke off the connection: {error}", "see the server's log") from error
                if pause is None:
                    raise Unavailable(
                        f"{url} cannot be reached",
                        "start the server (LM Studio: `lms server start`), or correct the URL",
                    ) from error
                time.sleep(pause)
            except requests.RequestException as error:
                raise RequestFailed(f"{url}: {error}") from error
        raise AssertionError("the loop returns or raises")

    def _content(self, response: requests.Response, url: str) -> bytes:
        """The whole content: a server that sends without end is given up on after a time and a length."""
        deadline = time.monotonic() + self._timeout[1]
        content = bytearray()
        while piece := response.raw.read1(_PIECE, decode_content=True):
            content += piece
            if len(content) > _MOST_BYTES:
                raise RequestFailed(f"{url} sent more than {_MOST_BYTES >> 20} MiB, beginning with {_shown(content)!r}")
            if time.monotonic() > deadline:
                raise self._too_slow(url)
        return bytes(content)

    def _too_slow(self, url: str) -> Unavailable:
        return Unavailable(f"{url} did not answer within {self._timeout[1]:.0f} s")


def _never_sent(error: requests.ConnectionError) -> bool:
    """Whether no connection was made: what was sent may have been worked on, and is not sent again."""
    cause = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(error, requests.ConnectTimeout) or isinstance(cause, urllib3.exceptions.NewConnectionError)


def _reason(content: bytes) -> str:
    """What an error response says; OpenAI's form is {"error": {"message": ...}}."""
    try:
        error = json.loads(content)["error"]
        said = str(error["message"] if isinstance(error, dict) else error)
        return said.encode("utf-8", "replace").decode()  # JSON may hold halves of characters
    except (ValueError, KeyError, TypeError, RecursionError):
        return _shown(content)


def _shown(content: bytes | bytearray) -> str:
    return content[:200].decode(errors="replace")
