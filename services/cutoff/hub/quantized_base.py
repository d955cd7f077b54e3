"""How a frozen base model is packed while an adapter is trained on it; written down beside the adapter.

An adapter learns to correct the packed weights too, so that whoever merges it must know of them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cutoff.errors import Fault, InvalidInput

if TYPE_CHECKING:
    import torch
    from transformers import BitsAndBytesConfig

Quantization = Literal["none", "4bit", "8bit"]

_FILE = "trained_on.json"


@dataclass(frozen=True, slots=True)
class TrainedOn:
    """What the base model's linear layers were while the adapter was trained."""

    quantization: Quantization = "none"
    dtype: str = "float32"
    """What the weights were before they were packed, and what is computed in where they are not."""

    def write(self, adapter: Path) -> None:
        """Writes it beside an adapter."""
        (adapter / _FILE).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, adapter: Path) -> TrainedOn | None:
        """Reads it; None where whoever trained the adapter did not write it.

        Raises:
            InvalidInput: It is there and cannot be read.
        """
        path = adapter / _FILE
        if not path.is_file():
            return None
        try:
            found = cls(**json.loads(path.read_text("utf-8")))
        except (ValueError, TypeError) as error:
            raise InvalidInput([Fault(str(path), "cannot be read", "train again, or remove it")]) from error
        if found.quantization not in ("none", "4bit", "8bit") or found.dtype not in ("float32", "float16", "bfloat16"):
            raise InvalidInput([Fault(str(path), f"says {found}", "train again, or remove it")])
        return found


def packed_as(adapter: Path, otherwise: Quantization = "none") -> Quantization:
    """How an adapter's base was held while it was trained; `otherwise` where whoever trained it did not write it down.

    Raises:
        InvalidInput: What was written down cannot be read.
    """
    known = TrainedOn.read(adapter)
    return known.quantization if known else otherwise


def bits_and_bytes(quantization: Quantization, compute: torch.dtype) -> BitsAndBytesConfig | None:
    """QLoRA's packing (arXiv 2305.14314): NF4 with doubly quantized scales; or LLM.int8() (2208.07339).

    Args:
        quantization: Which of the two.
        compute: What 4-bit weights are unpacked to for each product.
    """
    from transformers import BitsAndBytesConfig

    if quantization == "4bit":
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute,
        )
    return BitsAndBytesConfig(load_in_8bit=True) if quantization == "8bit" else None
