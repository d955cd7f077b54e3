"""Loads a tokenizer, and says what it adds to a text. transformers is imported when one is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cutoff.errors import Refused
from cutoff.hub.remote_code import trusts_remote_code

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Loads a tokenizer from a folder.

    Raises:
        Refused: It cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=trusts_remote_code(folder), local_files_only=True
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        first = str(error).strip().partition("\n")[0]
        raise Refused(
            f"the tokenizer in {folder} cannot be loaded: {first}",
            "the folder needs the model's tokenizer files; code of a model's own runs only if an operator allowed it",
        ) from error
    return tokenizer


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """Every token that is no text: named ones (eos, pad) and those the vocabulary marks as special."""
    marked = {str(token.content) for token in tokenizer.added_tokens_decoder.values() if token.special}
    return marked | {str(token) for token in tokenizer.all_special_tokens}


def adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether plain text gets a beginning-of-text token."""
    return tokenizer.bos_token_id is not None and tokenizer("x")["input_ids"][0] == tokenizer.bos_token_id
