"""How long examples are in tokens: figures, a histogram, and what the length limit does to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from cutoff.datasets.encoded import Cut
from cutoff.datasets.examples import SIDES, Side
from cutoff.datasets.job_files import SetName
from cutoff.datasets.report import SET_NAMES, Bin, Finding, Lengths, TokenCounts

BINS = 24
"""At most so many bars."""

_WIDTHS = (1, 2, 5)
"""Bars are so wide, or ten, a hundred times that."""

SetLengths = Mapping[SetName, Mapping[Side, Counter[int]]]
"""How many examples there are of each length, by set and side."""


def token_counts(lengths: SetLengths, limit: int) -> TokenCounts:
    """The figures of all sets, and one histogram of them together."""
    return TokenCounts(
        max_seq_length=limit,
        sets=tuple(
            _figures(of_set, side, counter, limit)
            for of_set, sides in lengths.items()
            for side, counter in sides.items()
            if counter
        ),
        histogram=tuple(_bins({side: sum((sides[side] for sides in lengths.values()), Counter()) for side in SIDES})),
    )


def length_findings(cuts: Mapping[SetName, Cut], limit: int) -> tuple[Finding, ...]:
    """What the limit does to the sets, in words."""
    found = []
    for of_set, cut in cuts.items():
        name = SET_NAMES[of_set]
        if cut.truncated:
            what = f"{cut.truncated} {name} examples are cut to {limit} tokens and lose the end of their answer"
            found.append(_finding("max_seq_length", cut.truncated, what))
        if cut.dropped:
            what = f"{cut.dropped} {name} examples are left out: {limit} tokens do not reach their answer"
            found.append(_finding("dropped", cut.dropped, what))
    return tuple(found)


def position_findings(config: Mapping[str, Any], limit: int) -> tuple[Finding, ...]:
    """Whether the limit is beyond the positions a model was made for.

    Args:
        config: Its config.json.
        limit: The most tokens of an example.
    """
    text = config.get("text_config")
    sections = (config, text if isinstance(text, dict) else {})
    given = (section.get(name) for section in sections for name in ("max_position_embeddings", "n_positions"))
    known = next((number for number in given if isinstance(number, int)), limit)
    if limit <= known:
        return ()
    what = f"max_seq_length is {limit}, and the base model was made for {known} tokens"
    fix = f"set train.max_seq_length to {known} or less: longer examples would be misread"
    return (Finding(kind="positions", severity="warning", count=limit - known, what=what, fix=fix),)


def _finding(kind: str, count: int, what: str) -> Finding:
    return Finding.model_validate(
        {"kind": kind, "severity": "warning", "count": count, "what": what, "fix": "raise train.max_seq_length"}
    )


def _figures(of_set: SetName, side: Side, counter: Counter[int], limit: int) -> Lengths:
    total = counter.total()
    return Lengths(
        set=of_set,
        side=side,
        examples=total,
        tokens=sum(length * count for length, count in counter.items()),
        least=min(counter),
        median=quantile(counter, 0.5),
        p95=quantile(counter, 0.95),
        most=max(counter),
        too_long=sum(count for length, count in counter.items() if length > limit),
    )


def quantile(counter: Counter[int], share: float) -> int:
    """The least length that is not exceeded by at least this share of the examples."""
    wanted, seen = share * counter.total(), 0
    for length in sorted(counter):
        seen += counter[length]
        if seen >= wanted:
            return length
    return max(counter)


def _bins(sides: Mapping[Side, Counter[int]]) -> Iterator[Bin]:
    """Bars of one round width from the shortest to the longest example."""
    lengths = [length for counter in sides.values() for length in counter]
    if not lengths:
        return
    width = next(width for width in _round_widths() if max(lengths) // width - min(lengths) // width < BINS)
    bars = {side: _grouped(counter, width) for side, counter in sides.items()}
    for number in range(min(lengths) // width, max(lengths) // width + 1):
        yield Bin(
            first=number * width,
            last=number * width + width - 1,
            retain=bars["retain"][number],
            unlearn=bars["unlearn"][number],
        )


def _grouped(counter: Counter[int], width: int) -> Counter[int]:
    grouped: Counter[int] = Counter()
    for length, count in counter.items():
        grouped[length // width] += count
    return grouped


def _round_widths() -> Iterator[int]:
    scale = 1
    while True:
        yield from (width * scale for width in _WIDTHS)
        scale *= 10
