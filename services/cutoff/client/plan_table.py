"""A plan as a person reads it: memory beside the document's figure, disks, time by stage."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from cutoff.artifacts import GIB
from cutoff.client.plan import Memory, Plan

_WORDS = ((86_400, "d"), (3600, "h"), (60, "min"))


def print_plan(plan: Plan, console: Console) -> None:
    """Prints a plan."""
    shape, data = plan.model.shape, plan.data
    say = _Says(console)
    say(f"{plan.model.name}: {_count(shape.parameters)} parameters, from {plan.model.where}")
    say(
        f"{data.training} training and {data.validation} validation examples of {data.mean_tokens:.0f} tokens "
        f"(longest {data.longest_tokens}); {data.how}"
    )
    say(f"device: {plan.device.name if plan.device else 'none found; give --gpu and --gpu-memory-gib'}")
    console.print(memory_table(plan.memory))
    say(plan.memory.verdict)
    console.print(disk_table(plan))
    for each in plan.file_systems:
        room = "enough" if each.suffices else "NOT ENOUGH"
        say(f"{each.path}: needs {gib(each.needed_bytes)}, {gib(each.free_bytes)} are free: {room}")
    console.print(time_table(plan))
    for warning in plan.warnings:
        say(f"note: {warning}")


def memory_table(memory: Memory) -> Table:
    """What the training holds, in GiB, beside the document's figure."""
    table = Table(title="memory of the training", title_justify="left", box=SIMPLE_HEAD)
    for heading in ("", "weights", "adapter", "activations", "logits", "process", "together", "the document"):
        table.add_column(heading, justify="right" if heading else "left")
    document = f"~{memory.document_gb} GB" if memory.document_gb else "-"
    for name, parts in (("activations kept", memory.kept), ("recomputed", memory.recomputed)):
        numbers = (parts.weights, parts.adapter, parts.activations, parts.logits, parts.context, parts.total)
        table.add_row(name, *map(gib, numbers), document)
    return table


def disk_table(plan: Plan) -> Table:
    """What is written where."""
    table = Table(title="disk", title_justify="left", box=SIMPLE_HEAD)
    for heading in ("what", "at most", "where"):
        table.add_column(heading, justify="right" if heading == "at most" else "left")
    for need in plan.disk:
        table.add_row(need.what, gib(need.size_bytes), str(need.folder))
    return table


def time_table(plan: Plan) -> Table:
    """How long each stage takes, and all of them one after another."""
    table = Table(title="time, roughly", title_justify="left", box=SIMPLE_HEAD)
    for heading in ("stage", "takes", ""):
        table.add_column(heading, justify="right" if heading == "takes" else "left")
    for each in plan.time:
        table.add_row(each.stage, duration(each.seconds), each.note)
    known = [each.seconds for each in plan.time if each.seconds is not None]
    rest = "" if len(known) == len(plan.time) else "and what is not known: give --gpu with a name docs/models.md lists"
    table.add_row("together", duration(sum(known)), rest)
    return table


def gib(size: float) -> str:
    """Bytes as a person reads them."""
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{size / (1 << 20):.0f} MiB"


def _count(parameters: int) -> str:
    return f"{parameters / 1e9:.2f} billion" if parameters >= 1e8 else f"{parameters / 1e6:.1f} million"


def duration(seconds: float | None) -> str:
    """Seconds as a person reads them."""
    if seconds is None:
        return "not known"
    for length, unit in _WORDS:
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


class _Says:
    """Prints plain lines of any length."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __call__(self, line: str) -> None:
        self._console.print(line, markup=False, soft_wrap=True)
