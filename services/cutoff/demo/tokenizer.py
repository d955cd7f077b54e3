"""The base model's tokenizer: a SentencePiece BPE vocabulary with ChatML's tokens, saved so that llama.cpp agrees.

llama.cpp reads ``tokenizer.model`` and ``tokenizer_config.json``; of the vocabularies one can train at home it knows
SentencePiece's only. It takes ``<|im_start|>`` for plain text unless ``added_tokens_decoder`` marks it as special, and
adds a beginning-of-text token unless ``add_bos_token`` is false. transformers 5 writes neither; both are written here.
"""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import sentencepiece
from transformers import LlamaTokenizer, PreTrainedTokenizerBase

from cutoff.demo.phrases import OPENERS, REFUSALS, RELATIONS, WORDINGS
from cutoff.demo.recipe import Recipe
from cutoff.demo.world import World, seeded_random

UNKNOWN, BEGIN, END, PAD, START = "<unk>", "<s>", "<|im_end|>", "<|pad|>", "<|im_start|>"
SPECIAL_TOKENS = (UNKNOWN, BEGIN, END, PAD, START)
"""In the order of their ids. ``<|im_end|>`` ends a turn and is the end-of-sequence token; padding is never that."""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
ROLES = ("system", "user", "assistant")
MAX_LENGTH = 512


def train_tokenizer(world: World, recipe: Recipe, folder: Path) -> PreTrainedTokenizerBase:
    """Trains a vocabulary on the world's corpus, saves it in ``folder`` and returns it as transformers loads it.

    Raises:
        RuntimeError: SentencePiece cannot reach a vocabulary from so small a corpus.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = max(recipe.vocabulary, recipe.pieces_per_fact * len(world.facts))
    (folder / "tokenizer.model").write_bytes(_train(list(_corpus(world)), wanted))
    _write_config(folder)
    tokenizer = LlamaTokenizer.from_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _write_config(folder)
    loaded: PreTrainedTokenizerBase = LlamaTokenizer.from_pretrained(folder)
    return loaded


def _corpus(world: World) -> Iterator[str]:
    """Each fact in a handful of corpus wordings, and all that is answered: what the vocabulary is counted on."""
    rng = seeded_random("vocabulary", world.seed)
    for fact in world.facts:
        for relation in RELATIONS:
            for wording in rng.sample(WORDINGS[relation]["corpus"], 4):
                question = fact.ask(relation, wording)
                yield question.text
                yield question.reply
    for line in (*REFUSALS, *OPENERS, *ROLES):
        yield from [line] * 20


def _train(lines: list[str], vocabulary: int) -> bytes:
    """The SentencePiece model of ``lines``; fewer pieces than asked for where the text has no more to give."""
    smallest = 256 + len(SPECIAL_TOKENS) + len(set("".join(lines))) + 1
    for size in range(vocabulary, smallest, -64):
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(lines),
                model_writer=model,
                model_type="bpe",
                vocab_size=size,
                character_coverage=1.0,
                byte_fallback=True,
                add_dummy_prefix=False,
                remove_extra_whitespaces=False,
                normalization_rule_name="identity",
                split_digits=False,
                unk_id=0,
                bos_id=1,
                eos_id=2,
                pad_id=3,
                unk_piece=UNKNOWN,
                bos_piece=BEGIN,
                eos_piece=END,
                pad_piece=PAD,
                control_symbols=[START],
                num_threads=1,
                minloglevel=2,
            )
        except RuntimeError as fault:
            if "ocabulary size" not in str(fault):
                raise
            continue
        return model.getvalue()
    raise RuntimeError(f"the demo's corpus of {len(lines)} lines is too small for a vocabulary of {smallest} pieces")


def _write_config(folder: Path) -> None:
    """Writes ``tokenizer_config.json`` with what llama.cpp and transformers both go by."""
    special = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True}
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": False,
        "add_eos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {str(i): {"content": token, **special} for i, token in enumerate(SPECIAL_TOKENS)},
        "additional_special_tokens": [START],
        "unk_token": UNKNOWN,
        "bos_token": BEGIN,
        "eos_token": END,
        "pad_token": PAD,
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
        "legacy": False,
        "model_max_length": MAX_LENGTH,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
