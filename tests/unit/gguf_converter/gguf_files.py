"""Writes small whole GGUF files without llama.cpp."""

from pathlib import Path

import numpy
from gguf import GGUFWriter


def write_gguf(path: Path, seed: int = 0, rows: int = 64) -> Path:
    """A GGUF with one tensor of `rows` x 32 float32, whose content the seed decides."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(512)
    writer.add_token_list(["<s>", "a", "b"])
    writer.add_chat_template("{{ messages }}")
    writer.add_tensor("token_embd.weight", numpy.random.default_rng(seed).random((rows, 32), dtype="float32"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
