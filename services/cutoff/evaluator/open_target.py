"""Which of the targets a request means: how to open it, and what it is by content."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from cutoff.artifacts import Roots, inside
from cutoff.errors import Fault, InvalidInput
from cutoff.evaluator.chat_targets import open_gguf, open_server
from cutoff.evaluator.identity import adapter_identity, file_identity, folder_identity, server_identity
from cutoff.evaluator.targets import BATCH, Target
from cutoff.hub import allowed_folder, packed_as
from cutoff.llama_cpp import LlamaCpp
from cutoff.spec import JobSpec
from cutoff.stage.report import Reporter
from cutoff.v1 import evaluator_pb2

Identity = Callable[[], str]
"""Says what a target is by content; it may have to read all of it."""


def open_target(
    request: evaluator_pb2.EvaluateRequest,
    spec: JobSpec,
    questions: Sequence[str],
    roots: Roots,
    devices: Sequence[str],
    report: Reporter,
    attempt: int = 1,
) -> tuple[AbstractContextManager[Target], Identity]:
    """The target a request names, not opened yet.

    Args:
        request: Its `model` says which.
        spec: The job's: how its base was packed, which llama.cpp it wants, how long answers may be.
        questions: What will be asked; a server of ours makes room for the longest.
        roots: Paths of a job are relative to its artifacts.
        devices: As torch names them; empty means the CPU.
        report: Hears what is loaded.
        attempt: Which try this is: each asks half as many questions at once as the one before it, since what ended
            that may have been the machine's memory, of which a killed process cannot tell.

    Raises:
        InvalidInput: The request names none, or a path leaves its root.
        Refused: The job may not use the llama.cpp it names.
    """

    def folder(path: str) -> Path:
        """The base model where prepare found it, or a folder below the artifacts root."""
        return allowed_folder(path, roots) if Path(path).is_absolute() else inside(roots.artifacts, path)

    batch = max(1, BATCH >> (attempt - 1))
    match request.WhichOneof("model"):
        case "model_path":
            from cutoff.evaluator.hf_model import open_hf  # imports torch, which a GGUF or a server can do without

            model = folder(request.model_path)
            return open_hf(model, devices, report, batch), lambda: folder_identity(model, devices)
        case "adapter":
            from cutoff.evaluator.hf_model import open_adapter

            base, adapter = folder(request.adapter.model_path), folder(request.adapter.adapter)
            packed = packed_as(adapter, spec.train.quantization)
            opened = open_adapter(base, adapter, devices, report, packed, batch)
            return opened, lambda: adapter_identity(base, adapter, packed, devices)
        case "gguf":
            llama = LlamaCpp.of_job(roots.cache, spec.convert.llama_cpp_path)
            gguf = inside(roots.artifacts, request.gguf)
            served = open_gguf(llama, gguf, questions, spec.evaluate.max_tokens, devices)
            return served, lambda: file_identity(gguf, devices)
        case "server":
            url, name = request.server.url, request.server.model or None
            return open_server(url, name), lambda: server_identity(url, name)
    raise InvalidInput([Fault("model", "is missing", "give model_path, adapter, gguf or server")])
