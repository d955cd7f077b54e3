"""The merged model's tokenizer: the one training used, complete, and such that llama.cpp reads it as training did.

What can be put right is put right and told; what cannot is a fault, all of them at once. Nothing here changes an id.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cutoff.datasets import PromptTemplate, template_of
from cutoff.errors import Fault, InvalidInput, Refused
from cutoff.hub import adds_bos, carry_tokenizer, load_tokenizer, special_tokens, tokenizer_files
from cutoff.hub.remote_code import read_json
from cutoff.merger.architecture import EMBEDDING, OUTPUT
from cutoff.merger.checkpoint import read_checkpoint

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_VOCABULARY_FILES = (
    *("tokenizer.model", "tokenizer.model.v*", "tekken.json", "spiece.model", "sentencepiece.bpe.model"),
    *("vocab.json", "merges.txt", "vocab.txt"),
)
"""What llama.cpp reads a vocabulary from, beside tokenizer.json; transformers does not write all of them."""

_TRAINING_TAG = re.compile(r"(\{%[-+]?\s*)(end)?generation(\s*[-+]?%\})")
"""Marks the assistant's words for trainers; only transformers knows it."""


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """A tokenizer that belongs to a merged model."""

    template: PromptTemplate
    folder: Path
    """Where its files are."""
    from_base: tuple[Path, ...] = ()
    """Vocabulary files that the folder lacks and the base model has."""
    drop_bos: bool = False
    """Whether llama.cpp must be kept from adding a beginning token that the chat template does not write."""
    replace_pad: bool = False
    """Whether padding must get another token than the end has."""
    pad: str | None = None
    """That token; None where there is none to take."""
    notes: tuple[str, ...] = ()
    """What the user should know about it."""


def load_merged_tokenizer(adapter: Path, base: Path) -> Tokenizer:
    """Loads the tokenizer from the adapter's folder, the base's where the adapter has none, and checks it.

    Args:
        adapter: The adapter's folder.
        base: The base model's, whose files are whole.

    Raises:
        InvalidInput: With all that speaks against it: more tokens than the model has rows, a chat template that fails.
        Refused: It cannot be loaded.
    """
    folder = adapter if tokenizer_files(adapter) else base
    tokenizer = load_tokenizer(folder)
    faults, notes = list(_size_faults(tokenizer, folder, base)), []
    if not tokenizer.chat_template:
        notes.append(f"the tokenizer in {folder} has no chat template; the merged model gets the Alpaca one")
    elif _remove_training_tags(tokenizer):
        notes.append("the chat template's marks for trainers ({% generation %}) are removed: llama.cpp knows none")
    try:
        template = template_of(tokenizer, "chat" if tokenizer.chat_template else "alpaca")
    except Refused as error:
        raise InvalidInput([*faults, Fault(str(folder), error.message, error.remedy)]) from error
    if faults:
        raise InvalidInput(faults)
    return _put_right(template, folder, base, notes)


def write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Writes all of a tokenizer's files into a merged model's folder; its two configurations are there."""
    carry_tokenizer(tokenizer.folder, folder, tokenizer.template.tokenizer)
    for path in tokenizer.from_base:
        shutil.copyfile(path, folder / path.name)
    if tokenizer.drop_bos:
        _edit(folder / "tokenizer_config.json", {"add_bos_token": False})
    if tokenizer.replace_pad:
        own = tokenizer.template.tokenizer
        number = own.convert_tokens_to_ids(tokenizer.pad) if tokenizer.pad else None
        for name in ("tokenizer_config.json", "special_tokens_map.json"):
            _edit(folder / name, {"pad_token": tokenizer.pad})
        for name in ("config.json", "generation_config.json"):
            _edit(folder / name, {"pad_token_id": number})


def _size_faults(tokenizer: PreTrainedTokenizerBase, folder: Path, base: Path) -> Iterator[Fault]:
    tensors = read_checkpoint(base)
    embedding = tensors.get(EMBEDDING) or tensors.get(OUTPUT)
    if embedding is None:
        return
    rows, highest = embedding.shape[0], max(tokenizer.get_vocab().values(), default=0)
    if len(tokenizer) > rows or highest >= rows:
        what = f"has {len(tokenizer)} tokens, the embedding of {base} has {rows} rows"
        yield Fault(str(folder), what, "merge into the model this tokenizer belongs to")


def _remove_training_tags(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Makes blocks that always hold of them, so that the template's white space stays as it is."""
    text = tokenizer.chat_template
    if not isinstance(text, str) or not _TRAINING_TAG.search(text):
        return False
    tokenizer.chat_template = _TRAINING_TAG.sub(lambda tag: f"{tag[1]}{'endif' if tag[2] else 'if true'}{tag[3]}", text)
    return True


def _put_right(template: PromptTemplate, folder: Path, base: Path, notes: list[str]) -> Tokenizer:
    tokenizer = template.tokenizer
    have = {path.name for path in tokenizer_files(folder)}
    found = (path for pattern in _VOCABULARY_FILES for path in sorted(base.glob(pattern)))
    from_base = tuple(path for path in found if path.name not in have)
    if from_base:
        names = ", ".join(path.name for path in from_base)
        notes.append(f"the adapter lacks {names}; they are taken from the base model")
    asked = read_json(folder / "tokenizer_config.json").get("add_bos_token", adds_bos(tokenizer))
    drop_bos = bool(asked) and template.prompt_ids("x")[0] != tokenizer.bos_token_id
    if drop_bos:
        notes.append("the chat template writes no beginning token, so that llama.cpp is told to add none")
    ends = {tokenizer.eos_token_id, template.stop_id}
    replace_pad = tokenizer.pad_token_id is not None and tokenizer.pad_token_id in ends
    pad = _other_pad(tokenizer, ends) if replace_pad else None
    if replace_pad:
        notes.append(f"padding was the end token {tokenizer.pad_token}; it is {pad or 'none'} now")
    return Tokenizer(template, folder, from_base, drop_bos, replace_pad, pad, tuple(notes))


def _other_pad(tokenizer: PreTrainedTokenizerBase, ends: set[Any]) -> str | None:
    """A special token for padding that ends nothing: one made for it, else the unknown token."""
    named = sorted(token for token in special_tokens(tokenizer) if "pad" in token.lower())
    unknown = [str(tokenizer.unk_token)] if tokenizer.unk_token else []
    return next((each for each in [*named, *unknown] if tokenizer.convert_tokens_to_ids(each) not in ends), None)


def _edit(path: Path, changes: dict[str, Any]) -> None:
    """Changes values in a JSON file, where there is one; None takes them away."""
    if path.is_file():
        content = json.loads(path.read_text("utf-8")) | changes
        kept = {name: value for name, value in content.items() if name not in changes or value is not None}
        path.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
