"""Under which licence a base model was published: what is made of it is bound to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from cutoff.hub.candidates import candidate

_FENCE = "---"


def licence_of(name: str, folder: Path) -> str:
    """The licence of a base model, as it calls it itself; "" when that is not known.

    Args:
        name: The hub id or folder, as the user names it.
        folder: The model's files. The head of its README.md is what the hub reads, too.
    """
    head = _head_of(folder / "README.md")
    named = head.get("license_name") if head.get("license") == "other" else None
    said = str(named or head.get("license") or "")
    known = candidate(name)
    return said or (known.licence if known else "")


def _head_of(path: Path) -> dict[str, Any]:
    """The YAML between the first lines of a model card; empty where there is none that can be read."""
    try:
        first, _, rest = path.read_text(encoding="utf-8").partition("\n")
        text, closed, _ = rest.partition(f"\n{_FENCE}")
        head = yaml.safe_load(text) if first.strip() == _FENCE and closed else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return head if isinstance(head, dict) else {}
