"""The model card: what a model is made of, how it was made, what was measured, how to load it. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cutoff
from cutoff.gguf_converter.card_facts import CardFacts, GgufFile
from cutoff.spec.quantizations import file_name
from cutoff.spec.requirements import REQUIREMENTS
from cutoff.v1 import job_pb2

_SCORES = {
    "retain accuracy": "retain_correct",
    "false refusal rate": "retain_refused",
    "unlearn success rate": "unlearn_refused",
    "knowledge leakage": "unlearn_leaked",
    "forgotten": "unlearn_forgotten",
}
"""Columns, and the fields of `Evaluation` below them: the document's four metrics, and one beside them."""

_SETS = ("validation", "test", "heldout")

_LIMITS = """\
- The scores hold for the questions that were asked, in their wordings. Fine-tuning teaches a model to decline; it
  does not prove that the knowledge is gone: rewording, examples in the prompt or a little further training may bring
  some of it back.
- Every quantization type is another model. Only the types in the table of scores were measured.
- Questions about the time around the cutoff date, and about things without a date, may be answered or declined.
- The model is bound to the licence of its base model, and has the faults of that model besides its own.
"""


def render(facts: CardFacts, template: str) -> str:
    """The card, as Markdown.

    Args:
        facts: Everything it tells.
        template: The chat template the GGUF carries; "" when it has none.
    """
    install = facts.spec.install
    sections = [
        f"# {install.model_name}\n\n{_summary(facts)}",
        f"## Scores\n\n{_scores(facts)}",
        f"## Files\n\n{_files(facts.files)}",
        f"## How to load it\n\n{_loading(install.publisher, install.model_name, facts.files[0])}",
        f"## Data\n\n{_data(facts)}",
        f"## Recipe\n\n{_recipe(facts)}",
        f"## Prompt template\n\n{_template(template)}",
        f"## Limits\n\n{_LIMITS}",
    ]
    return "\n".join(section.rstrip("\n") + "\n" for section in sections)


def _summary(facts: CardFacts) -> str:
    spec = facts.spec
    rows = {
        "base model": spec.base_model if facts.commit else Path(spec.base_model).name,
        "commit": facts.commit or "none: the base model was a folder",
        "licence of the base model": facts.licence or "not known: see the base model",
        "knowledge cutoff": str(spec.cutoff) if spec.cutoff else "no date was given",
        "made by": f"cutoff {cutoff.__version__}, job {facts.job}, {facts.created}",
    }
    return _table(("", ""), rows.items())


def _scores(facts: CardFacts) -> str:
    if not facts.evaluations:
        return "Nothing was measured."
    rows = [
        *_thresholds(),
        *((found.target, found.question_set, *_cells(found)) for found in sorted(facts.evaluations, key=_order)),
    ]
    table = _table(("target", "questions", *_SCORES), rows)
    return f"In percent, with 95 % intervals and the number of questions.\n\n{table}\n{_verdict(facts)}"


def _thresholds() -> Iterable[tuple[str, ...]]:
    """The document's two columns, as rows above the scores."""
    for bar in ("target", "minimum"):
        limits = {
            row.score: f"{'>' if row.higher_is_better else '<'} {100 * row.limit(bar):.0f}" for row in REQUIREMENTS
        }
        yield (f"*{bar}*", "", *(limits.get(field, "") for field in _SCORES.values()))


def _order(evaluation: job_pb2.Evaluation) -> int:
    """The set that decides comes first; the order of targets within a set stays as it is."""
    known = evaluation.question_set in _SETS
    return _SETS.index(evaluation.question_set) if known else len(_SETS)


def _cells(evaluation: job_pb2.Evaluation) -> Iterable[str]:
    for field in _SCORES.values():
        score: job_pb2.Score = getattr(evaluation, field)
        if evaluation.HasField(field) and score.total:
            share = f"{100 * score.count / score.total:.1f}"
            yield f"{share} ({100 * score.low:.0f} to {100 * score.high:.0f}, n={score.total})"
        else:
            yield "-"


def _verdict(facts: CardFacts) -> str:
    require = facts.spec.install.require
    if facts.missed:
        return f"It misses what `install.require: {require}` asks for: {'; '.join(facts.missed)}."
    measured = {evaluation.target for evaluation in facts.evaluations}
    if require == "none" or facts.files[0].quant_type not in measured:
        return "It was held against no threshold."
    return f"{facts.files[0].quant_type} reaches what `install.require: {require}` asks for, on the validation set."


def _files(files: Sequence[GgufFile]) -> str:
    rows = [(file.quant_type, file.path, f"{file.size_bytes / 1e6:.1f} MB", f"`{file.sha256}`") for file in files]
    return _table(("type", "file", "size", "SHA-256"), rows)


def _loading(publisher: str, model_name: str, file: GgufFile) -> str:
    name = file_name(model_name, file.quant_type)  # type: ignore[arg-type]
    return f"""\
LM Studio, with the file at `<models>/{publisher}/{model_name}/{name}` (`cutoff install` puts it there):

```sh
lms load "{model_name}"
```

llama.cpp:

```sh
llama-server -m {name} --jinja
llama-cli -m {name} --jinja -cnv
```
"""


def _data(facts: CardFacts) -> str:
    files = [(file.field, file.name, str(file.examples or "-"), f"`{file.sha256}`") for file in facts.data]
    counts = [(name.replace("_", " "), f"{count:,}") for name, count in facts.counts.items()]
    return "\n".join(
        [_table(("field", "file", "examples", "SHA-256"), files), _table(("of all files", "count"), counts)]
    )


def _recipe(facts: CardFacts) -> str:
    spec = facts.spec.model_dump(mode="json")
    options = [*_options("train", spec["train"]), *_options("merge", spec["merge"])]
    ended = [(name.replace("_", " "), _number(value)) for name, value in facts.training.items()]
    parts = [_table(("option", "value"), options)]
    if ended:
        parts.append(f"The training ended with:\n\n{_table(('', 'value'), ended)}")
    return "\n".join(parts)


def _options(section: str, values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for name, value in values.items():
        shown = "by default" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        yield f"{section}.{name}", shown


def _number(value: float) -> str:
    return f"{value:,.0f}" if value.is_integer() else f"{value:.4g}"


def _template(template: str) -> str:
    if not template:
        return "The GGUF carries none."
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", template)), default=0))
    return f"As the GGUF carries it, which is what the model was trained with:\n\n{fence}jinja\n{template}\n{fence}\n"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines)


def _cell(text: str) -> str:
    """What may stand in a table: no end of line, and no bar."""
    return " ".join(text.split()).replace("|", "\\|")
