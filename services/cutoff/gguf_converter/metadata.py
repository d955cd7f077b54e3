"""What a GGUF says of where it comes from: keys of `general.*` that other programs know, and our own `cutoff.*`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cutoff

_HUB = "https://huggingface.co"


@dataclass(frozen=True, slots=True)
class Facts:
    """Where a model comes from; what is not known is empty."""

    job: str = ""
    base_model: str = ""
    """A hub id or a folder."""
    base_revision: str = ""
    """The commit of a hub model."""
    license: str = ""
    cutoff: str = ""
    """The last day of what is kept, as 1969-12-31."""
    data_sha256: Mapping[str, str] = field(default_factory=dict)
    """By field of the job's dataset."""
    recipe: str = ""
    """How it was trained and merged, as JSON."""

    @property
    def is_from_hub(self) -> bool:
        """Whether the base model is named by a hub id."""
        return bool(self.base_revision)

    @property
    def base_name(self) -> str:
        """The base model's name; of a folder its last part, since paths of this machine are nobody else's business."""
        return self.base_model if self.is_from_hub else Path(self.base_model).name


def general_metadata(facts: Facts) -> dict[str, Any]:
    """Keys of `general.*` in the form convert_hf_to_gguf.py's --metadata reads (the GGUF specification has them)."""
    keys: dict[str, Any] = {"general.tags": ["knowledge-cutoff", "unlearning"]}
    if facts.base_model:
        owner, _, name = facts.base_name.rpartition("/")
        base = {"name": name, "organization": owner, "version": facts.base_revision}
        if facts.is_from_hub:
            base["repo_url"] = f"{_HUB}/{facts.base_model}"
        keys["general.base_models"] = [{key: value for key, value in base.items() if value}]
    return keys


def own_metadata(facts: Facts, llama_cpp: str) -> dict[str, str]:
    """Our own keys, and the licence, which --metadata does not take; texts all of them.

    Args:
        facts: Where the model comes from.
        llama_cpp: The version of llama.cpp that makes the file.
    """
    keys = {
        "general.license": facts.license,
        "cutoff.version": cutoff.__version__,
        "cutoff.llama_cpp": llama_cpp,
        "cutoff.job": facts.job,
        "cutoff.base_model": facts.base_name if facts.base_model else "",
        "cutoff.base_revision": facts.base_revision,
        "cutoff.date": facts.cutoff,
        "cutoff.recipe": facts.recipe,
        **{f"cutoff.data.{name}.sha256": digest for name, digest in sorted(facts.data_sha256.items())},
    }
    return {key: value for key, value in keys.items() if value}
