"""A model's files: from the Hugging Face hub or a folder, and the tokenizer files that must travel along.

Nothing here imports torch.
"""

from cutoff.hub.base_model import BaseModel, resolve_base_model
from cutoff.hub.model_folder import check_model_folder
from cutoff.hub.packing import Quantization, packing
from cutoff.hub.remote_code import trusts_remote_code
from cutoff.hub.tokenizer import adds_bos, load_tokenizer, special_tokens
from cutoff.hub.tokenizer_files import PROBE_QUESTIONS, carry_tokenizer, tokenizer_files

__all__ = [
    "PROBE_QUESTIONS",
    "BaseModel",
    "Quantization",
    "adds_bos",
    "carry_tokenizer",
    "check_model_folder",
    "load_tokenizer",
    "packing",
    "resolve_base_model",
    "special_tokens",
    "tokenizer_files",
    "trusts_remote_code",
]
