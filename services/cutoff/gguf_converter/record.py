"""What a conversion made and found: the stage's result, and the manifest beside the files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cutoff.artifacts import Published, publishing
from cutoff.gguf_converter.checks import Check
from cutoff.gguf_converter.making import Made
from cutoff.gguf_converter.order import Order
from cutoff.llama_cpp import LlamaCpp
from cutoff.spec.quant_types import QuantType

MANIFEST = "convert.json"
"""The record of a job's conversion, beside its files."""


@dataclass(frozen=True, slots=True)
class Converted:
    """The GGUF files of one model, and what was found about them."""

    files: Mapping[QuantType, Published]
    made: Mapping[QuantType, Made]
    kept: Published | None
    """The 16-bit file, where it was asked for beside the others."""
    sixteen_bit: str
    """The type of the 16-bit file: f16 or bf16."""
    parameters: int
    probes: int
    """Prompts whose tokens were compared."""
    checks: tuple[Check, ...]
    steps: Mapping[str, float]
    """Seconds by what was made."""
    seconds: float

    def summary(self, root: Path) -> dict[str, Any]:
        """As JSON; paths are relative to a root.

        files (quant_type, path, size_bytes, sha256, bits_per_weight, tensor_types, fell_back), kept, sixteen_bit,
        parameters, probes, checks (name, target, figure, verdict, state, seconds), steps, seconds.
        """
        return {
            "files": [
                {
                    "quant_type": quant_type,
                    **_described(file, root),
                    "bits_per_weight": round(self.made[quant_type].compared.bits_per_weight, 3),
                    "tensor_types": self.made[quant_type].compared.types,
                    "fell_back": self.made[quant_type].fell_back,
                }
                for quant_type, file in self.files.items()
            ],
            "kept": _described(self.kept, root) if self.kept else None,
            "sixteen_bit": self.sixteen_bit,
            "parameters": self.parameters,
            "probes": self.probes,
            "checks": [asdict(check) for check in self.checks],
            "steps": dict(self.steps),
            "seconds": self.seconds,
        }


def _described(file: Published, root: Path) -> dict[str, Any]:
    path = file.path.resolve()
    shown = path.relative_to(root.resolve()) if path.is_relative_to(root.resolve()) else path
    return {"path": str(shown), "size_bytes": file.size_bytes, "sha256": file.sha256}


def write_manifest(order: Order, llama: LlamaCpp, converted: Converted) -> None:
    """Publishes the record beside the files: which llama.cpp made them, their facts, hashes and checks."""
    record = {
        "model": order.name,
        "llama_cpp": llama.version(),
        "facts": asdict(order.facts),
        **converted.summary(order.folder),
    }
    with publishing(order.manifest) as partial:
        partial.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
