"""What a model's card (README.md) says of it in its YAML head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

CARD = "README.md"
_FENCE = "---"


def license_of(folder: Path) -> str:
    """The licence a model's card names: "apache-2.0"; the name of a licence of its own; "" when it names none."""
    head = _head(folder / CARD)
    named = head.get("license")
    if isinstance(named, list):
        named = ",".join(str(each) for each in named)
    own = head.get("license_name")
    return str(own if named in (None, "other") and own else named or "")


def _head(path: Path) -> dict[str, Any]:
    """The YAML between the first two fences; empty when there is none that can be read."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    if not lines or lines[0].strip() != _FENCE:
        return {}
    end = next((at for at, line in enumerate(lines[1:], 1) if line.strip() == _FENCE), 0)
    try:
        head = yaml.safe_load("\n".join(lines[1:end]))
    except yaml.YAMLError:
        return {}
    return head if isinstance(head, dict) else {}
