"""`cutoff check`: everything that can be known of a job's data on this machine, without a server or the network."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cutoff.artifacts import Roots
from cutoff.datasets import (
    DataReport,
    Finding,
    OnProgress,
    check_job,
    check_learnable,
    judged,
    load_encoded_job,
    load_template,
    require_usable_truths,
)
from cutoff.datasets.examples import Faults
from cutoff.datasets.report import Bin, Lengths, line_of
from cutoff.errors import InvalidInput, Refused
from cutoff.spec import JobSpec
from cutoff.trainer.prepare import check_trackers

_STYLE = {"error": "bold red", "warning": "yellow", "note": "dim"}
_BAR = 40
"""Characters of the longest bar."""


def check(spec: JobSpec, roots: Roots, on_progress: OnProgress) -> DataReport:
    """Checks a job's data as `prepare` does; measures lengths where the tokenizer is on this machine.

    What is tokenized stays in the cache, where training on this machine finds it.

    Raises:
        Refused: A file changed while it was read.
    """
    report = check_job(spec, roots.datasets, roots.cache, on_progress)
    if report.fault_count:
        report = report.model_copy(update={"lengths_missing": "the data has faults"})
    else:
        report = _with_lengths(spec, roots, report, on_progress)
    return _with_trackers(spec, report)


def _with_trackers(spec: JobSpec, report: DataReport) -> DataReport:
    """The report with the experiment trackers that lack here; a client without a stage trains nothing, so none do."""
    if importlib.util.find_spec("torch") is None:
        return report
    faults = Faults()
    with faults.collected():
        report.raise_if_faulty()
    with faults.collected():
        check_trackers(spec.train.report_to)
    return report.with_faults(faults)


def _with_lengths(spec: JobSpec, roots: Roots, report: DataReport, on_progress: OnProgress) -> DataReport:
    """The report with lengths, or with why they were not measured."""
    folder, reason = _model_folder(spec)
    if folder is None:
        return report.model_copy(update={"lengths_missing": reason})
    try:
        return _measured(spec, roots, folder, on_progress)
    except ModuleNotFoundError as error:
        reason = f"{error.name} is not installed here; a machine with a stage (pip install .[trainer]) has it"
        return report.model_copy(update={"lengths_missing": reason})
    except InvalidInput as error:
        faults = Faults()
        faults.extend(error.faults)
        reason = "the tokenizer's answer is among the faults"
        return report.with_faults(faults).model_copy(update={"lengths_missing": reason})


def _measured(spec: JobSpec, roots: Roots, folder: Path, on_progress: OnProgress) -> DataReport:
    """The report with lengths.

    Raises:
        InvalidInput: The tokenizer, or the length limit, refuses the data.
    """
    faults, limit = Faults(), spec.train.max_seq_length
    try:
        template = load_template(folder, spec.train.prompt_format)
        job = load_encoded_job(
            spec.dataset, roots.datasets, template, folder, limit, spec.train.seed, roots.cache, on_progress
        )
    except Refused as error:
        faults.add("base_model", error.message, error.remedy)
        faults.raise_if_any()
        raise
    for name, rows in (("training", job.train), ("validation", job.validation)):
        with faults.collected():
            check_learnable(rows, template, limit, name)
    if not faults.count:
        with faults.collected():
            require_usable_truths(job.report, job.truths, spec.train)
    return judged(job.report, spec.train).with_faults(faults)


def _model_folder(spec: JobSpec) -> tuple[Path | None, str]:
    """The base model's folder if it is on this machine, else why not; the network is not asked."""
    if spec.base_model_is_folder:
        folder = Path(spec.base_model).expanduser()
        return (folder, "") if folder.is_dir() else (None, f"there is no folder {folder} on this machine")
    hub_id, _, revision = spec.base_model.partition("@")
    try:
        from cutoff.hub.snapshot import cached_snapshot

        snapshot = cached_snapshot(hub_id, revision or None)
    except ModuleNotFoundError as error:
        return None, f"{error.name} is not installed here; a machine with a stage (pip install .[trainer]) has it"
    if snapshot is None:
        return None, f"{spec.base_model} is not on this machine yet; prepare fetches it and measures them"
    return snapshot.folder, ""


def print_report(report: DataReport, console: Console) -> None:
    """Prints the tables: the sets, how long their examples are, how refusals vary, and what was found."""
    console.print(sets_table(report))
    if report.lengths:
        console.print(histogram(report.lengths.histogram, report.lengths.max_seq_length))
    else:
        console.print(f"lengths were not measured: {report.lengths_missing}\n", markup=False, soft_wrap=True)
    refusals = report.refusals
    if refusals:
        share = 100 * refusals.commonest_count / refusals.examples
        line = f"refusals: {refusals.distinct} wordings; {share:.0f} % are {refusals.commonest!r}\n"
        console.print(line, markup=False, soft_wrap=True)
    for finding in report.findings:
        console.print(_finding_line(finding), soft_wrap=True)
    console.print(verdict(report), markup=False, style="bold")


def verdict(report: DataReport) -> str:
    """What it all comes to, in one line."""
    warnings = len(report.warnings())
    if report.fault_count:
        return f"refused: {report.fault_count} fault{'s' if report.fault_count > 1 else ''}"
    return f"good, with {warnings} warning{'s' if warnings > 1 else ''}" if warnings else "good"


def sets_table(report: DataReport) -> Table:
    """How many examples each side of each set has, what is known of them, and how long they are in tokens."""
    table = Table(title="examples, and their tokens", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("set")
    headings = ("examples", "true answers", "years", "tokens", "least", "median", "95 %", "most", "too long")
    for heading in headings:
        table.add_column(heading, justify="right")
    lengths = {(each.set, each.side): each for each in report.lengths.sets} if report.lengths else {}
    for each in report.sets:
        counted = (each.examples, each.true_answers, each.years)
        measured = _figures(lengths.get((each.set, each.side)))
        table.add_row(f"{each.side} {each.set}", *(f"{number:,}" for number in counted), *measured)
    return table


def _figures(lengths: Lengths | None) -> Iterable[str]:
    if lengths is None:
        return ["-"] * 6
    numbers = (lengths.tokens, lengths.least, lengths.median, lengths.p95, lengths.most)
    share = f" ({100 * lengths.too_long / lengths.examples:.1f} %)" if lengths.too_long else ""
    return [*(f"{number:,}" for number in numbers), f"{lengths.too_long:,}{share}"]


def histogram(bins: Iterable[Bin], limit: int) -> Table:
    """Bars: how many examples have so many tokens; those above the limit are marked."""
    bars = list(bins)
    table = Table(title=f"tokens of an example; max_seq_length is {limit}", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("tokens", justify="right")
    table.add_column("retain", justify="right")
    table.add_column("unlearn", justify="right")
    table.add_column("")
    most = max((bar.retain + bar.unlearn for bar in bars), default=1)
    for bar in bars:
        retain, unlearn = (round(_BAR * count / most) for count in (bar.retain, bar.unlearn))
        drawn = Text("█" * retain, style="blue") + Text("█" * unlearn, style="magenta")
        if bar.last > limit:
            drawn += Text(" cut", style="yellow")
        span = f"{bar.first}" if bar.first == bar.last else f"{bar.first}-{bar.last}"
        table.add_row(span, f"{bar.retain:,}", f"{bar.unlearn:,}", drawn)
    return table


def _finding_line(finding: Finding) -> Text:
    return Text(f"{finding.severity}: ", style=_STYLE[finding.severity]) + Text(line_of(finding), style="default")
