"""The merged model's tokenizer: the one training used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cutoff.datasets import PromptTemplate, load_template
from cutoff.errors import Fault, InvalidInput
from cutoff.hub import load_tokenizer, tokenizer_files
from cutoff.merger.architecture import EMBEDDING
from cutoff.merger.checkpoint import read_checkpoint


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """A tokenizer that belongs to a merged model."""

    template: PromptTemplate
    folder: Path
    """Where its files are."""
    notes: tuple[str, ...] = ()
    """What the user should know about it."""


def load_merged_tokenizer(adapter: Path, base: Path) -> Tokenizer:
    """Loads the tokenizer from the adapter's folder; the base's where the adapter has none.

    Raises:
        InvalidInput: It has more tokens than the model has embedding rows.
        Refused: It cannot be loaded, or its template cannot be used.
    """
    folder = adapter if tokenizer_files(adapter) else base
    tokenizer = load_tokenizer(folder)
    embedding = read_checkpoint(base).get(EMBEDDING)
    if embedding and len(tokenizer) > embedding.shape[0]:
        what = f"has {len(tokenizer)} tokens, the embedding of {base} has {embedding.shape[0]} rows"
        raise InvalidInput([Fault(str(folder), what, "merge into the model this tokenizer belongs to")])
    if tokenizer.chat_template:
        return Tokenizer(load_template(folder), folder)
    note = f"the tokenizer in {folder} has no chat template; the merged model gets the Alpaca one"
    return Tokenizer(load_template(folder, "alpaca"), folder, (note,))
