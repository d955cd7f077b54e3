"""Keeps the Hugging Face libraries' own bars and warnings off the terminal: a run speaks through its Reporter."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_SPEAKERS = ("accelerate", "bitsandbytes", "httpx2", "huggingface_hub", "peft", "torch", "transformers", "trl")


def before_import() -> None:
    """Call it before torch, peft or trl are imported: some things are said and read then, and only then."""
    for name in _SPEAKERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    # OpenMP threads that wait must sleep, not spin: two threads on two busy cores trained 9 times slower spinning.
    # A microsecond or so of spinning (libgomp's count) spares them the sleep between two operations: docs/log.md.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


@contextmanager
def quiet_libraries(tell: Callable[[str], None]) -> Iterator[None]:
    """Hides progress bars and loggers below ERROR; Python warnings go to `tell`."""
    from transformers.utils import logging as transformers_logging

    before_import()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()

    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any) -> None:
        tell(f"{category.__name__}: {message} ({filename}:{lineno})")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
