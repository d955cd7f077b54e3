"""The document's JSONL data sets: reading, checking, rendering with one template.

Nothing here imports torch; transformers is imported when a tokenizer is loaded, numpy when a name of `_WITH_NUMPY` is
first asked for: servers and commands that only read their flags need neither.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cutoff.datasets.document import DOCUMENT_EXAMPLES, DOCUMENT_QUESTIONS
from cutoff.datasets.examples import SIDES, Example, InvalidData, Side
from cutoff.datasets.job_data import JobData, fill_answers, load_examples, load_job_data, of_side, select
from cutoff.datasets.prompts import PromptFormat, PromptTemplate, load_template, template_of
from cutoff.datasets.report import DataReport, Finding

if TYPE_CHECKING:
    from cutoff.datasets.check import OnProgress, check_data, check_job
    from cutoff.datasets.encode import check_learnable, encode_examples, show_mask
    from cutoff.datasets.encoded import Encoded, EncodedSet
    from cutoff.datasets.encoded_job import PROBES_PER_SIDE, EncodedJob, load_encoded_job
    from cutoff.datasets.sample_text import CALIBRATION_TOKENS, VALIDATION_TOKENS, retain_text, text_of_examples
    from cutoff.datasets.truths import judged, require_truths, require_usable_truths

_WITH_NUMPY = {
    "check": ("OnProgress", "check_data", "check_job"),
    "encode": ("check_learnable", "encode_examples", "show_mask"),
    "encoded": ("Encoded", "EncodedSet"),
    "encoded_job": ("PROBES_PER_SIDE", "EncodedJob", "load_encoded_job"),
    "sample_text": ("CALIBRATION_TOKENS", "VALIDATION_TOKENS", "retain_text", "text_of_examples"),
    "truths": ("judged", "require_truths", "require_usable_truths"),
}

__all__ = [
    "CALIBRATION_TOKENS",
    "DOCUMENT_EXAMPLES",
    "DOCUMENT_QUESTIONS",
    "PROBES_PER_SIDE",
    "SIDES",
    "VALIDATION_TOKENS",
    "DataReport",
    "Encoded",
    "EncodedJob",
    "EncodedSet",
    "Example",
    "Finding",
    "InvalidData",
    "JobData",
    "OnProgress",
    "PromptFormat",
    "PromptTemplate",
    "Side",
    "check_data",
    "check_job",
    "check_learnable",
    "encode_examples",
    "fill_answers",
    "judged",
    "load_encoded_job",
    "load_examples",
    "load_job_data",
    "load_template",
    "of_side",
    "require_truths",
    "require_usable_truths",
    "retain_text",
    "select",
    "show_mask",
    "template_of",
    "text_of_examples",
]


def __getattr__(name: str) -> Any:
    """Imports the module of a name that needs numpy."""
    for module, names in _WITH_NUMPY.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
