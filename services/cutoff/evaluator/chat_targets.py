"""A GGUF behind llama-server, or any OpenAI-compatible server: the chat API, several questions at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from cutoff.errors import CutoffError, NotFound, Unavailable
from cutoff.evaluator.targets import Chat, Reply
from cutoff.llama_cpp import (
    ChatClient,
    Completion,
    LlamaCpp,
    LlamaServer,
    Message,
    RequestFailed,
    concurrently,
    serve,
)

LMSTUDIO_URL = "http://localhost:1234/v1"

_TEMPLATE_TOKENS = 256
"""Room for what a chat template writes around a question."""

_ROUND = 256
_SMALL = 256 << 20
"""A GGUF below so many bytes is answered faster by one thread: more would only wait for each other."""

_SLOTS, _SLOTS_OF_SMALL = 8, 16
_CONNECTIONS = 4
"""LM Studio answers a few requests at once."""

_SERVER_SECONDS = 300.0
"""A server that takes longer for one answer is taken for stuck."""

Ask = Callable[[Sequence[Message], int], Completion]
"""Takes a chat and max_tokens."""

Obstacle = Callable[[Chat], str]
"""Says why a kind of chat cannot be put to a server; nothing when it can."""


class ChatTarget:
    """A server that is asked over its chat API.

    Args:
        ask: Sends one chat; may be called from several threads.
        connections: How many are under way at once.
        obstacle: Which chats the server cannot be asked; all are fine without it.
    """

    def __init__(self, ask: Ask, connections: int, obstacle: Obstacle = lambda _: "") -> None:
        self.ask = ask
        self.connections = connections
        self.obstacle = obstacle

    def answers(self, questions: Sequence[str], max_tokens: int) -> Iterator[tuple[int, Reply]]:
        """Yields replies as they come; a question that got no answer yields its error.

        Raises:
            ProgramFailed, OutOfMemory: The server was ours, and died.
            NotFound: The server has no such model any more.
        """
        return self._answered([_messages(question) for question in questions], max_tokens)

    def replies(self, chats: Sequence[Chat], max_tokens: int) -> Iterator[tuple[int, Reply]]:
        """As `answers`, to chats; the beginning of an answer is sent as the assistant's unfinished message.

        Raises:
            ProgramFailed, OutOfMemory, NotFound: As `answers`.
        """
        begun = [[{"role": "assistant", "content": chat.begun}] if chat.begun else [] for chat in chats]
        asked = [[*chat.messages, *last] for chat, last in zip(chats, begun, strict=True)]
        for index, reply in self._answered(asked, max_tokens):
            yield index, replace(reply, text=reply.text.removeprefix(chats[index].begun).strip())

    def _answered(self, chats: Sequence[Sequence[Message]], max_tokens: int) -> Iterator[tuple[int, Reply]]:
        for index, outcome in concurrently(partial(self._reply, max_tokens), chats, self.connections):
            if isinstance(outcome, Reply):
                yield index, outcome
            else:
                raise outcome

    def _reply(self, max_tokens: int, messages: Sequence[Message]) -> Reply | CutoffError:
        try:
            completion = self.ask(messages, max_tokens)
        except (RequestFailed, Unavailable) as error:
            return Reply("", error=str(error))
        except CutoffError as error:  # raised where the answers are read, not in this thread
            return error
        return Reply(completion.text.strip(), cut=completion.finish_reason == "length")


@contextmanager
def open_gguf(
    llama: LlamaCpp, gguf: Path, questions: Sequence[str], max_tokens: int, devices: Sequence[str] = ()
) -> Iterator[ChatTarget]:
    """Serves a GGUF through its own chat template, and stops the server when the block ends.

    Args:
        llama: The llama.cpp to use.
        gguf: The model.
        questions: What will be asked: the longest decides how much context is reserved.
        max_tokens: Of an answer.
        devices: As torch names them; empty means the CPU.

    Raises:
        NotFound: There is no such file.
        ProgramFailed, OutOfMemory, Unavailable: llama-server does not serve it.
    """
    if not gguf.is_file():
        raise NotFound(f"{gguf} is not a file", "give the path of a GGUF")
    small = gguf.stat().st_size < _SMALL
    slots = _SLOTS_OF_SMALL if small else _SLOTS
    context = context_for(questions, max_tokens)
    with serve(llama, gguf, context, slots, threads=1 if small else None, devices=devices) as server:
        yield ChatTarget(server.complete, slots, partial(_template_obstacle, server))


@contextmanager
def open_server(url: str, model: str | None) -> Iterator[ChatTarget]:
    """Connects to an OpenAI-compatible server such as LM Studio.

    Args:
        url: With "/v1".
        model: One of its models; None when it has only one.

    Raises:
        Unavailable: It is not there.
        NotFound: It has no such model; those it has are listed.
        RequestFailed: It does not speak the protocol.
    """
    with ChatClient(url, model or "", connections=_CONNECTIONS, timeout=_SERVER_SECONDS) as client:
        if model is None:
            client.choose_only_model()
        else:
            client.require_model()
        yield ChatTarget(client.complete, _CONNECTIONS, _foreign_obstacle)


def context_for(questions: Sequence[str], max_tokens: int) -> int:
    """Tokens a slot must hold. A token is at least one byte, so bytes are an upper bound that needs no tokenizer."""
    longest = max((len(question.encode()) for question in questions), default=0)
    wanted = longest + _TEMPLATE_TOKENS + max_tokens
    return -(-wanted // _ROUND) * _ROUND


def _template_obstacle(server: LlamaServer, chat: Chat) -> str:
    """Why the GGUF's chat template cannot render a chat; llama-server takes up a begun answer."""
    try:
        rendered = server.apply_template(chat.messages)
    except RequestFailed as error:
        return error.message
    missing = [role for role, content in chat.turns if content.strip() not in rendered]
    return f"the chat template leaves out the {missing[0]} message" if missing else ""


def _foreign_obstacle(chat: Chat) -> str:
    """The protocol does not say that a server goes on from an unfinished answer; many begin a new one."""
    return "a server of one's own may not go on from the beginning of an answer" if chat.begun else ""


def _messages(question: str) -> list[dict[str, str]]:
    """A chat as training rendered it: the user's question and no system message."""
    return [{"role": "user", "content": question}]
