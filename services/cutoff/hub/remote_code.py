"""Whether code that a model's repository brings along may run: never, unless an operator listed the exact commit.

A model whose architecture transformers does not know names Python files of its own in its configuration
(`auto_map`), and loading it would execute them with everything the service may do. An operator who has read that
code names model and commit in CUTOFF_ALLOW_REMOTE_CODE of the trainer, merger and evaluator:

    CUTOFF_ALLOW_REMOTE_CODE=owner/name@<the 40 digits of the commit>,...

Only a snapshot in the shared cache can be trusted: its path names model and commit. A folder never is: nothing says
where its files come from, and they can change after they were looked at. Why: docs/adr/0009.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from cutoff.errors import Fault, InvalidInput

ALLOW_LIST = "CUTOFF_ALLOW_REMOTE_CODE"
"""The environment variable of the hosts that load models."""

CODE_FILES = "*.py"
"""What is fetched beside the weights of a model on the list, and of no other."""

_ENTRY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*@[0-9a-f]{40}")


def allowed_commits() -> frozenset[str]:
    """The entries of the allow-list, each "owner/name@commit".

    Raises:
        InvalidInput: With every entry that does not name one commit of one model.
    """
    entries = [entry.strip() for entry in os.environ.get(ALLOW_LIST, "").split(",")]
    given = [entry for entry in entries if entry]
    fix = "write owner/name@ and the 40 digits of a commit; a branch could change under you"
    faults = [Fault(ALLOW_LIST, f"has the entry {entry!r}", fix) for entry in given if not _ENTRY.fullmatch(entry)]
    if faults:
        raise InvalidInput(faults)
    return frozenset(given)


def trusts_remote_code(folder: Path) -> bool:
    """Whether `trust_remote_code` may be set for what is loaded from a folder.

    True only for a snapshot in the shared cache whose model and commit are on the allow-list, whose architecture
    transformers does not know by itself, and whose code lies in that snapshot.

    Args:
        folder: A model's folder.

    Raises:
        InvalidInput: The allow-list cannot be read.
    """
    allowed = allowed_commits()
    if not allowed or snapshot_name(folder) not in allowed:
        return False
    config = read_json(folder / "config.json")
    return not is_known(config) and not _borrows_code(folder)


def snapshot_name(folder: Path) -> str | None:
    """Model and commit of a snapshot in the shared cache, as owner/name@commit; None for any other folder."""
    from huggingface_hub import constants

    try:
        parts = folder.resolve().relative_to(Path(constants.HF_HUB_CACHE).resolve()).parts
    except ValueError:
        return None
    match parts:
        case (repository, "snapshots", commit) if repository.startswith("models--"):
            return f"{repository.removeprefix('models--').replace('--', '/')}@{commit}"  # no hub id holds --
    return None


def brings_code(config: dict[str, Any]) -> bool:
    """Whether a configuration names code of the model's own, and transformers does not know its architecture.

    Many models of known architectures (Phi-3, say) bring code too: theirs is never needed, nor run.
    """
    return bool(config.get("auto_map")) and not is_known(config)


def is_known(config: dict[str, Any]) -> bool:
    """Whether transformers has a causal language model of this type."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return config.get("model_type") in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; empty where there is none."""
    try:
        found: Any = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _borrows_code(folder: Path) -> bool:
    """Whether a class comes from another repository ("owner/name--file.Class"), at whatever commit that is."""
    maps = (read_json(folder / name).get("auto_map") for name in ("config.json", "tokenizer_config.json"))
    return any("--" in json.dumps(each) for each in maps)
