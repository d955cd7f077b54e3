"""What LM Studio has, by its REST API v1: https://lmstudio.ai/docs/developer/rest (LM Studio 0.4 and later)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cutoff.llama_cpp.chat import ChatClient, RequestFailed


def api_of(url: str) -> str:
    """The API's base of a server's URL; "/v1" at its end, as OpenAI's clients want it, does no harm."""
    return url.rstrip("/").removesuffix("/v1").removesuffix("/api") + "/api/v1"


def list_models(client: ChatClient) -> list[Mapping[str, Any]]:
    """The models LM Studio lists, of every format.

    Args:
        client: Whose URL is `api_of` one.

    Raises:
        Unavailable: Nobody answers there.
        RequestFailed: It is not LM Studio 0.4 or later.
    """
    answer = client.request("GET", f"{client.url}/models")
    models = answer.get("models") if isinstance(answer, dict) else None
    if not isinstance(models, list):
        raise RequestFailed(
            f"{client.url}/models did not list models: {shown(answer)}",
            "the URL must be that of LM Studio 0.4 or later",
        )
    known = [model for model in models if isinstance(model, dict)]
    return [model for model in known if model.get("key") and isinstance(model["key"], str)]


def instances(model: Mapping[str, Any]) -> list[str]:
    """The ids of a model's loaded instances; one that is not named is left out."""
    listed = model.get("loaded_instances")
    named = [one.get("id") for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    return [str(name) for name in named if name]


def shown(answer: Any) -> str:
    """The beginning of an answer, to be quoted."""
    return sendable(str(answer)[:200])


def sendable(text: str) -> str:
    """A text that can be passed on: JSON may hold halves of characters, UTF-8 may not."""
    return text.encode("utf-8", "replace").decode()
