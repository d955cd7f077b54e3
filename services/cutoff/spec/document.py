"""Writes docs/job.md, every field of job.yaml, from the specification itself: `make docs`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cutoff.spec.job import JobSpec, RelearnSpec, StageSpec

_HEAD = """\
# job.yaml, field by field

Generated from `services/cutoff/spec/job.py` by `make docs`. Unknown fields are refused, with the nearest known
one. A field that is left out has its default; `name`, `base_model` and `dataset` have none.

```yaml
name: temporal-qwen
base_model: Qwen/Qwen2.5-1.5B-Instruct
cutoff: 1969-12-31
dataset:
  retain_train: retain/retain_train.jsonl
  retain_val: retain/retain_val.jsonl
  unlearn_train: unlearn/unlearn_train.jsonl
  unlearn_val: unlearn/unlearn_val.jsonl
train: {epochs: 3, quantization: 4bit}
convert: {quant_types: [q4_k_m]}
install: {model_name: temporal-unlearn}
```
"""


def job_reference() -> str:
    """The page, as Markdown."""
    fields = JobSpec.model_fields
    sections = {name: _section(field) for name, field in fields.items()}
    plain = {name: field for name, field in fields.items() if sections[name] is None}
    parts = [_HEAD, _table(plain)]
    for name, section in sections.items():
        if section is not None:
            parts.append(f"## {name}\n\n{fields[name].description}\n\n{_table(section.model_fields)}")
            if name == "train":
                parts.append(f"### train.then\n\n{StageSpec.__doc__}\n\n{_table(StageSpec.model_fields)}")
            if name == "evaluate":
                parts.append(f"### evaluate.relearn\n\n{RelearnSpec.__doc__}\n\n{_table(RelearnSpec.model_fields)}")
    return "\n".join(parts)


def _section(field: FieldInfo) -> type[BaseModel] | None:
    """The section a field leads to; None for a plain value."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _table(fields: Mapping[str, FieldInfo]) -> str:
    rows = []
    for name, field in fields.items():
        default = "required" if field.is_required() else _shown(field.default)
        rows.append(f"| `{name}` | {default} | {_values(field.annotation)} | {field.description or ''} |")
    return "\n".join(["| field | default | values | what it is |", "|---|---|---|---|", *rows]) + "\n"


def _values(kind: Any) -> str:
    """The words a field takes, where it takes no others."""
    if get_origin(kind) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(kind))
    return next(filter(None, map(_values, get_args(kind))), "")


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, list | tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    print(job_reference(), end="")
