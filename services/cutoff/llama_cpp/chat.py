"""A client for OpenAI-compatible chat servers: llama-server, LM Studio."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

from cutoff.errors import NotFound, ProgramFailed, Unavailable

Message = Mapping[str, str]
"""A chat message: role and content."""

_CONNECT_TIMEOUT = 5.0
_BACKOFF = (0.2, 0.5, 1.0)
"""Seconds before each retry of a request that got no connection."""

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class RequestFailed(ProgramFailed):
    """The server answered, but not with what was asked for."""


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
        timeout: Seconds to wait for an answer once a request was sent.
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
        """
        body = {
            "model": self.model,
            "messages": list(messages),
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": False,
        }
        answer = self.request("POST", f"{self.url}/chat/completions", body)
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
        response = self._send(method, url, body)
        if not response.ok:
            raise RequestFailed(f"{url} answered {response.status_code}: {_reason(response)}")
        try:
            return response.json()
        except ValueError as error:
            raise RequestFailed(f"{url} did not answer with JSON but with: {response.text[:200]!r}") from error

    def _send(self, method: str, url: str, body: Any) -> requests.Response:
        for pause in (*_BACKOFF, None):
            try:
                return self._session.request(method, url, json=body, timeout=self._timeout)
            except requests.ReadTimeout as error:
                raise Unavailable(f"{url} did not answer within {self._timeout[1]:.0f} s") from error
            except requests.ConnectionError as error:
                if pause is None:
                    raise Unavailable(
                        f"{url} cannot be reached",
                        "start the server (LM Studio: `lms server start`), or correct the URL",
                    ) from error
                time.sleep(pause)
            except requests.RequestException as error:
                raise RequestFailed(f"{url}: {error}") from error
        raise AssertionError("the loop returns or raises")


def _reason(response: requests.Response) -> str:
    """What an error response says; OpenAI's form is {"error": {"message": ...}}."""
    try:
        error = response.json()["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError):
        return response.text[:200]
