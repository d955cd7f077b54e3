"""Asks LM Studio whether it takes what was installed: list, load, one question, unload, by its REST API v1.

The API: https://lmstudio.ai/docs/developer/rest (LM Studio 0.4 and later). What LM Studio says never undoes an
installation: it may be short of memory, or look into another folder. It is told, and kept in the run's result.

Environment:
    LMSTUDIO_URL: The server, http://localhost:1234 say; unset, nothing is asked.
    LM_API_TOKEN: Its API token, if it wants one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from cutoff.errors import CutoffError, NotFound, Unavailable
from cutoff.llama_cpp import ChatClient, RequestFailed
from cutoff.llama_cpp.lmstudio import api_of, instances, list_models, sendable, shown
from cutoff.spec import InstallSpec
from cutoff.stage.report import Reporter

_LOAD_SECONDS = 600.0
"""How long loading may take."""

_NOTICE_SECONDS = 20.0
"""How long LM Studio may take to notice a new file."""

_MOST_TOKENS = 64
_DEFAULT_QUESTION = "What is 2+2?"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of asking LM Studio."""

    verdict: Literal["answered", "skipped", "failed"]
    detail: str
    """In words."""
    key: str = ""
    """What LM Studio calls the model: `lms load KEY`."""
    answer: str = ""
    load_seconds: float = 0.0


def ask_configured(spec: InstallSpec, size_bytes: int, question: str, report: Reporter) -> Verdict:
    """Asks the LM Studio that LMSTUDIO_URL names, and tells what came of it.

    Args:
        spec: What was installed.
        size_bytes: Of the installed file: LM Studio must list one of this size.
        question: Of the job's own; empty asks an easy one.
        report: Hears of the outcome.
    """
    url = os.environ.get("LMSTUDIO_URL", "")
    if not url:
        skipped = Verdict("skipped", "LM Studio was not asked to load it: LMSTUDIO_URL is not set")
        report.log(skipped.detail)
        return skipped
    try:
        verdict = ask(url, spec, size_bytes, question or _DEFAULT_QUESTION)
    except Unavailable as error:
        verdict = Verdict("skipped", f"LM Studio was not asked to load it: {error.message}")
    except CutoffError as error:
        verdict = Verdict("failed", f"LM Studio: {error}")
    except ValueError as error:
        verdict = Verdict("skipped", f"LM Studio was not asked to load it: LMSTUDIO_URL or LM_API_TOKEN: {error}")
    (report.log if verdict.verdict == "answered" else report.warn)(verdict.detail)
    return verdict


def ask(
    url: str, spec: InstallSpec, size_bytes: int, question: str, notice_seconds: float = _NOTICE_SECONDS
) -> Verdict:
    """Has LM Studio list, load and unload a model, and answer a question in between.

    Args:
        url: The server's; "/v1" at its end, as OpenAI's clients want it, does no harm.
        spec: What was installed.
        size_bytes: Of the installed file.
        question: What to ask.
        notice_seconds: How long LM Studio may take to list a new file.

    Raises:
        Unavailable: Nobody answers there, or not in time.
        NotFound: LM Studio does not list the model.
        RequestFailed: It does not speak the protocol, or cannot load the model.
    """
    base = api_of(url)
    with ChatClient(base, "", os.environ.get("LM_API_TOKEN", ""), timeout=_LOAD_SECONDS) as client:
        model = _listed(client, spec, size_bytes, time.monotonic() + notice_seconds)
        key, others = str(model["key"]), instances(model)
        with _loaded(client, key, others) as (instance, seconds):
            body = {"model": instance, "input": question, "temperature": 0, "max_output_tokens": _MOST_TOKENS}
            answer = _answer(client.request("POST", f"{base}/chat", {**body, "store": False}), base)
    stale = f"; {', '.join(others)} was loaded before and may be of another file: lms unload" if others else ""
    detail = f"LM Studio loads {key} in {seconds:.1f} s and answers {question!r} with {answer!r}{stale}"
    return Verdict("answered", sendable(detail), sendable(key), answer, seconds)


def _listed(client: ChatClient, spec: InstallSpec, size_bytes: int, deadline: float) -> Mapping[str, Any]:
    """The model as LM Studio lists it, as soon as it does."""
    while True:
        models = _models(client)
        named = [model for model in models if _is(model, spec)]
        found = next((model for model in named if model.get("size_bytes") == size_bytes), None)
        if found is not None:
            return found
        if time.monotonic() > deadline:
            break
        time.sleep(0.5)
    sizes = sendable(", ".join(f"{model['key']} with {model.get('size_bytes')} bytes" for model in named))
    raise NotFound(
        f"{client.url} lists {sizes or f'no model {spec.publisher}/{spec.model_name}'}, not the installed file",
        "set LM Studio to the models folder of LMSTUDIO_MODELS (its page My Models)",
    )


def _models(client: ChatClient) -> list[Mapping[str, Any]]:
    return [model for model in list_models(client) if model.get("format") == "gguf"]


def _is(model: Mapping[str, Any], spec: InstallSpec) -> bool:
    """Whether LM Studio means this model.

    Its keys are in lower case, may have "publisher/" before and "@q4_k_m" after, and lack a folder's -GGUF.
    """
    name = str(model["key"]).lower().partition("@")[0].rpartition("/")[2]
    publisher = str(model.get("publisher") or spec.publisher).lower()
    wanted = spec.model_name.lower()
    return publisher == spec.publisher.lower() and name in (wanted, wanted.removesuffix("-gguf"))


@contextmanager
def _loaded(client: ChatClient, key: str, others: Sequence[str]) -> Iterator[tuple[str, float]]:
    """Loads an instance of a model of one's own; yields its id and the seconds that took, and unloads it.

    Args:
        client: Of LM Studio.
        key: The model's.
        others: The ids of the instances that were loaded before.
    """
    started = time.monotonic()
    answer = client.request("POST", f"{client.url}/models/load", {"model": key})
    seconds = time.monotonic() - started
    instance = answer.get("instance_id") or answer.get("model_instance_id") if isinstance(answer, dict) else None
    unload = partial(client.request, "POST", f"{client.url}/models/unload")
    if not (instance and isinstance(instance, str)):
        if key not in others:  # a model's first instance is called by its key
            with suppress(CutoffError):
                unload({"instance_id": key})
        raise RequestFailed(f"{client.url}/models/load did not name the instance: {shown(answer)}")
    try:
        yield instance, seconds
    finally:
        unload({"instance_id": instance})


def _answer(answer: Any, base: str) -> str:
    output = answer.get("output") if isinstance(answer, dict) else None
    if not isinstance(output, list):
        raise RequestFailed(f"{base}/chat answered without output: {shown(answer)}")
    messages = [item for item in output if isinstance(item, dict) and item.get("type") == "message"]
    said = "".join(str(item.get("content") or "") for item in messages).strip()
    if not said:
        raise RequestFailed(f"{base}/chat answered nothing")
    return sendable(said)
