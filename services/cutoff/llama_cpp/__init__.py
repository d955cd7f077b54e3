"""The pinned llama.cpp: where its build is, and its programs.

`LlamaCpp` finds the build; `convert` and `quantize` make GGUF files, `importance_matrix` and `perplexity` measure
them; `serve` runs llama-server and yields a client for it. Everything runs in child processes that die with their
parent and stop when the main thread is interrupted.
"""

from cutoff.llama_cpp.chat import ChatClient, Completion, Message, RequestFailed
from cutoff.llama_cpp.concurrently import concurrently
from cutoff.llama_cpp.convert import OutType, convert, require_known
from cutoff.llama_cpp.imatrix import Perplexity, importance_matrix, perplexity
from cutoff.llama_cpp.location import LlamaCpp, allowed_folders, pinned_version
from cutoff.llama_cpp.programs import run_program
from cutoff.llama_cpp.quantize import Fallback, Quantized, quantize
from cutoff.llama_cpp.server import LlamaServer, Predicted, serve

__all__ = [
    "ChatClient",
    "Completion",
    "Fallback",
    "LlamaCpp",
    "LlamaServer",
    "Message",
    "OutType",
    "Perplexity",
    "Predicted",
    "Quantized",
    "RequestFailed",
    "allowed_folders",
    "concurrently",
    "convert",
    "importance_matrix",
    "perplexity",
    "pinned_version",
    "quantize",
    "require_known",
    "run_program",
    "serve",
]
