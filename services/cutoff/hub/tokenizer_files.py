"""Carries a tokenizer from folder to folder without losing what transformers does not write.

transformers 5 saves neither `tokenizer.model` nor the keys llama.cpp reads (`added_tokens_decoder`,
`add_bos_token`); a GGUF made without them tokenizes differently and answers wrongly. Training and merging never
change a vocabulary, so the files are copied as they are, and only what lacks is written.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cutoff.hub.tokenizer import adds_bos

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CONFIG = "tokenizer_config.json"
_TEMPLATE = "chat_template.jinja"

PROBE_QUESTIONS = "probe_questions.json"
"""Beside an adapter: a few questions of its job's data, which the merged model is compared with."""

TOKENIZER_FILES = (
    _CONFIG,
    _TEMPLATE,
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer.model.v*",
    "tekken.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "chat_template.json",
    "additional_chat_templates/*.jinja",
)
"""Every file a tokenizer of the supported model families may consist of (patterns)."""


def tokenizer_files(folder: Path) -> list[Path]:
    """The tokenizer's files in a folder, sorted."""
    return sorted({path for pattern in TOKENIZER_FILES for path in folder.glob(pattern) if path.is_file()})


def carry_tokenizer(source: Path, target: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Copies a tokenizer's files and completes its configuration.

    Args:
        source: The folder the tokenizer was loaded from.
        target: The folder to copy to; it exists.
        tokenizer: The tokenizer as it was used: its chat template is written where it is not the files'.
    """
    for path in tokenizer_files(source):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, copy)
    config_path = target / _CONFIG
    config: dict[str, Any] = json.loads(config_path.read_text("utf-8")) if config_path.exists() else {}
    _complete(config, tokenizer)
    template = tokenizer.chat_template
    if isinstance(template, str) and template != _stored_template(target, config):
        config["chat_template"] = template
        (target / _TEMPLATE).write_text(template, encoding="utf-8")
    config_path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _complete(config: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> None:
    """Adds the keys llama.cpp reads where they lack; what is there stays as it is."""
    config.setdefault("add_bos_token", adds_bos(tokenizer))
    fields = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    typed = {
        str(number): {field: getattr(token, field) for field in fields}
        for number, token in sorted(tokenizer.added_tokens_decoder.items())
    }
    config["added_tokens_decoder"] = typed | (config.get("added_tokens_decoder") or {})


def _stored_template(folder: Path, config: dict[str, Any]) -> object:
    """The template transformers would read from the folder: the file wins over the configuration."""
    file = folder / _TEMPLATE
    return file.read_text("utf-8") if file.exists() else config.get("chat_template")
