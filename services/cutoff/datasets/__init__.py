"""The document's JSONL data sets: reading, checking, rendering with one template.

Nothing here imports torch; transformers is imported when a tokenizer is loaded.
"""

from cutoff.datasets.document import DOCUMENT_QUESTIONS
from cutoff.datasets.encode import check_learnable, encode_examples, show_mask
from cutoff.datasets.encoded import IGNORED, Encoded, EncodedSet
from cutoff.datasets.examples import SIDES, Example, InvalidData, Side
from cutoff.datasets.job_data import JobData, fill_answers, load_examples, load_job_data, of_side, select
from cutoff.datasets.prompts import (
    PromptFormat,
    PromptTemplate,
    load_template,
    template_of,
)

__all__ = [
    "DOCUMENT_QUESTIONS",
    "IGNORED",
    "SIDES",
    "Encoded",
    "EncodedSet",
    "Example",
    "InvalidData",
    "JobData",
    "PromptFormat",
    "PromptTemplate",
    "Side",
    "check_learnable",
    "encode_examples",
    "fill_answers",
    "load_examples",
    "load_job_data",
    "load_template",
    "of_side",
    "select",
    "show_mask",
    "template_of",
]
