"""A GGUF behind llama-server, or any OpenAI-compatible server: the chat API, several questions at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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

_UNFINISHED = "a server of one's own may not go on from the beginning of an answer"
"""The protocol does not say what happens to an unfinished answer; many servers begin a new one."""


class ChatTarget:
    """A server that is asked over its chat API.

    Args:
        ask: Sends one chat; may be called from several threads.
        connections: How many are under way at once.
        ours: The server where it is llama-server: its template can be looked at, and it goes on from a beginning.
    """

    def __init__(self, ask: Ask, connections: int, ours: LlamaServer | None = None) -> None:
        self.ask = ask
        self.connections = connections
        self._ours = ours

    def answers(self, questions: Sequence[str], max_tokens: int) -> Iterator[tuple[int, Reply]]:
        """Yields replies as they come; a question that got no answer yields its error.

        Raises:
            ProgramFailed, OutOfMemory: The server was ours, and died.
            NotFound: The server has no such model any more.
        """
        return self.replies([Chat((("user", question),)) for question in questions], max_tokens)

    def obstacle(self, chat: Chat) -> str:
        """Why a chat of this kind cannot be put to the server; empty when it can.

        Our server shows what its template makes of it; of another one, a single token is asked for.

        Raises:
            ProgramFailed, OutOfMemory, NotFound, Unavailable: The server is gone, or the model is.
        """
        try:
            if self._ours is None:
                if not chat.begun and len(chat.turns) > 1:
                    self.ask(chat.messages, 1)
                return _UNFINISHED if chat.begun else ""
            rendered = self._ours.apply_template(chat.messages)
        except RequestFailed as error:
            return error.message
        missing = next((role for role, content in chat.turns if content.strip() not in rendered), None)
        return f"the chat template leaves out the {missing} message" if missing else ""

    def replies(self, chats: Sequence[Chat], max_tokens: int) -> Iterator[tuple[int, Reply]]:
        """As `answers`, to chats.

        Raises:
            ProgramFailed, OutOfMemory, NotFound: As `answers`.
        """
        for index, outcome in concurrently(partial(self._reply, max_tokens), chats, self.connections):
            if isinstance(outcome, Reply):
                yield index, outcome
            else:
                raise outcome

    def _reply(self, max_tokens: int, chat: Chat) -> Reply | CutoffError:
        try:
            if chat.begun and self._ours is not None:
                completion = self._ours.go_on(chat.messages, chat.begun, max_tokens)
            else:
                completion = self.ask(chat.messages, max_tokens)
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
        yield ChatTarget(server.complete, slots, server)


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
        yield ChatTarget(client.complete, _CONNECTIONS)


def context_for(questions: Sequence[str], max_tokens: int) -> int:
    """Tokens a slot must hold. A token is at least one byte, so bytes are an upper bound that needs no tokenizer."""
    longest = max((len(question.encode()) for question in questions), default=0)
    wanted = longest + _TEMPLATE_TOKENS + max_tokens
    return -(-wanted // _ROUND) * _ROUND
