"""Which folders a service reads a base model from, when a request names one."""

from __future__ import annotations

from pathlib import Path

from cutoff.artifacts import Roots, model_folder
from cutoff.hub.snapshot import hub_cache


def allowed_folder(name: str, roots: Roots) -> Path:
    """The folder of a base model: of the operator's folders (`model_folder`), of a cache, or of the artifacts.

    Args:
        name: As prepare resolved it.
        roots: The service's.

    Raises:
        InvalidInput: It lies elsewhere.
    """
    return model_folder(name, (roots.artifacts, roots.cache, hub_cache()))
