"""What the check of a job's data found: numbers, and findings with their places. JSON in, JSON out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel, ConfigDict

from cutoff.datasets.examples import Faults, InvalidData, Side
from cutoff.datasets.job_files import SetName
from cutoff.errors import Fault

Kind = Literal[
    "schema", "taught_both_ways", "contradiction", "duplicate", "two_answers", "expected_otherwise",
    "validation_in_training", "looks_cut", "says_nothing", "echo", "sides_swapped", "special_tokens", "refusals",
    "balance", "true_answers", "years", "max_seq_length", "positions", "dropped", "truths_cut", "truths_merged",
    "truths_bare",
]  # fmt: skip
"""The kinds of findings; docs/datasets.md explains each."""

SET_NAMES: Mapping[SetName, str] = {"train": "training", "validation": "validation"}
"""What findings call the sets."""

PLACES = 5
"""How many places a finding names; it counts all."""


@dataclass(slots=True)
class Tally:
    """Counts one kind of thing, and remembers where it was met first."""

    count: int = 0
    places: list[str] = field(default_factory=list)

    def add(self, place: str, count: int = 1) -> None:
        """Notes that there are more of it."""
        self.count += count
        if len(self.places) < PLACES:
            self.places.append(place)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Finding(_Part):
    """One kind of thing that was found."""

    kind: Kind
    severity: Literal["error", "warning", "note"]
    """An error refuses the job; a note says what cannot be done with the data, or how it is made up."""
    count: int
    """How many there are: lines, or questions where a question is at fault."""
    what: str
    """In words, with the count."""
    fix: str = ""
    places: tuple[str, ...] = ()
    """The first of them: "retain/retain_train.jsonl:17"."""


class FaultyLine(_Part):
    """An error with its place."""

    where: str
    what: str
    fix: str


class FileCount(_Part):
    """One file."""

    field: str
    name: str
    size_bytes: int
    examples: int
    """Lines without a fault."""


class SetCount(_Part):
    """One side of one set."""

    set: SetName
    side: Side
    examples: int
    years: int
    """Of them with metadata.year."""
    true_answers: int
    """Of them with metadata.original_answer, or an answer in the answers file."""


class Refusals(_Part):
    """How the unlearn side's training examples decline."""

    examples: int
    distinct: int
    commonest: str
    """As it stands in the data, shortened."""
    commonest_count: int


class Lengths(_Part):
    """Tokens of the examples of one side of one set, before they are cut."""

    set: SetName
    side: Side
    examples: int
    tokens: int
    least: int
    median: int
    p95: int
    most: int
    too_long: int
    """Examples with more tokens than max_seq_length; they are cut, or dropped where nothing of the answer fits."""


class Bin(_Part):
    """A bar of the histogram: training and validation examples with `first` to `last` tokens."""

    first: int
    last: int
    retain: int
    unlearn: int


class TokenCounts(_Part):
    """What the tokenizer makes of the data."""

    max_seq_length: int
    sets: tuple[Lengths, ...]
    histogram: tuple[Bin, ...]


class DataReport(_Part):
    """Everything that is known about a job's data."""

    files: tuple[FileCount, ...]
    sets: tuple[SetCount, ...]
    refusals: Refusals | None
    """None where there are no unlearn examples."""
    findings: tuple[Finding, ...]
    fault_count: int = 0
    faults: tuple[FaultyLine, ...] = ()
    """The first of them."""
    lacking_true_answers: tuple[str, ...] = ()
    """The first unlearn examples without one."""
    lengths: TokenCounts | None = None
    lengths_missing: str = ""
    """Why lengths were not measured."""

    @property
    def counts(self) -> dict[str, int]:
        """Examples by "retain_train", "retain_validation" and so on."""
        return {f"{each.side}_{each.set}": each.examples for each in self.sets}

    def count(self, name: SetName, side: Side) -> int:
        """How many examples a side of a set has."""
        return next(each.examples for each in self.sets if (each.set, each.side) == (name, side))

    def warnings(self) -> list[str]:
        """What the user should know, a line each."""
        return [line_of(finding) for finding in self.findings if finding.severity == "warning"]

    def raise_if_faulty(self) -> None:
        """Ends what cannot go on with such data.

        Raises:
            InvalidData: With the faults that are listed, and how many there are.
        """
        if self.fault_count:
            raise InvalidData([Fault(each.where, each.what, each.fix) for each in self.faults], self.fault_count)

    def with_faults(self, faults: Faults) -> DataReport:
        """The report with what a further check refused."""
        listed = tuple(FaultyLine(where=each.where, what=each.what, fix=each.fix) for each in faults.shown)
        return self.model_copy(update={"fault_count": faults.count, "faults": listed})

    def with_lengths(self, lengths: TokenCounts, findings: tuple[Finding, ...]) -> DataReport:
        """The report with what the tokenizer says."""
        return self.with_findings(findings).model_copy(update={"lengths": lengths})

    def with_findings(self, findings: tuple[Finding, ...]) -> DataReport:
        """The report with what was found besides."""
        return self.model_copy(update={"findings": (*self.findings, *findings)})


def line_of(finding: Finding) -> str:
    """A finding in one line, with its places."""
    more = ", ..." if finding.count > len(finding.places) else ""
    places = f" ({', '.join(finding.places)}{more})" if finding.places else ""
    return finding.what + places + (f"; {finding.fix}" if finding.fix else "")
