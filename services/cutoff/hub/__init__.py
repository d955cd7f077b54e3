"""A model's files: from the Hugging Face hub or a folder, and the tokenizer files that must travel along.

Nothing here imports torch.
"""

from cutoff.hub.allowed_folder import allowed_folder
from cutoff.hub.base_model import BaseModel, local_base_model, resolve_base_model
from cutoff.hub.causal_lm import load_causal_lm
from cutoff.hub.model_card import license_of
from cutoff.hub.model_folder import check_model_folder, weights_digest
from cutoff.hub.quantized_base import TrainedOn, bits_and_bytes, packed_as
from cutoff.hub.remote_code import trusts_remote_code
from cutoff.hub.tokenizer import adds_bos, load_tokenizer, special_tokens
from cutoff.hub.tokenizer_files import PROBE_QUESTIONS, carry_tokenizer, tokenizer_files

__all__ = [
    "PROBE_QUESTIONS",
    "BaseModel",
    "TrainedOn",
    "adds_bos",
    "allowed_folder",
    "bits_and_bytes",
    "carry_tokenizer",
    "check_model_folder",
    "license_of",
    "load_causal_lm",
    "load_tokenizer",
    "local_base_model",
    "packed_as",
    "resolve_base_model",
    "special_tokens",
    "tokenizer_files",
    "trusts_remote_code",
    "weights_digest",
]
