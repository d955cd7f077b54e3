"""The report's plots, as SVG that takes its colours from the page: light or dark, they follow the reader's choice.

Each is drawn twice, for a wide and for a narrow screen: text in a plot that is merely scaled down cannot be read.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from cutoff.evaluator.job_report.answers import BASE, CONTROL, REFERENCES
from cutoff.evaluator.job_report.schema import AttackRow, Bars, DriftRow, JobReport, Tone
from cutoff.evaluator.job_report.verdict import tone_of
from cutoff.evaluator.result import SetShares, Share, YearShares

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE, NARROW = 9.0, 3.75
"""Inches; at 96 pixels an inch the plots' text has its natural size."""

_INK, _SOFT, _LINE, _PAPER = "#010101", "#020202", "#030303", "#040404"
_GOOD, _FAIR, _BAD, _KEEP = "#010201", "#020201", "#020101", "#010102"
_VARIABLES: Mapping[str, str] = {
    _INK: "ink", _SOFT: "soft", _LINE: "line", _PAPER: "card", _GOOD: "good", _FAIR: "fair", _BAD: "bad", _KEEP: "keep",
}  # fmt: skip
"""Colours that nothing else has, and the page's custom properties that take their place."""

_OF_TONE: Mapping[Tone, str] = {"good": _GOOD, "fair": _FAIR, "bad": _BAD, "unknown": _SOFT}


@dataclass(frozen=True, slots=True)
class Picture:
    """One plot."""

    description: str
    """For those who do not see it."""
    wide: str
    narrow: str


def scores_picture(report: JobReport, question_set: str) -> Picture | None:
    """The four metrics of all targets with their intervals, against the table's bars; None when none was measured."""
    found = [(result.target, result.sets[question_set]) for result in report.targets if question_set in result.sets]
    rows = [bars for bars in report.requirements if any(getattr(shares, bars.score) for _, shares in found)]
    if not rows:
        return None

    def draw(figure: Figure, narrow: bool) -> None:
        columns = 1 if narrow else 2
        axes = figure.subplots(-(-len(rows) // columns), columns, squeeze=False).flatten()
        for bars, panel in zip(rows, axes, strict=False):
            _metric(panel, bars, found)
        for unused in axes[len(rows) :]:
            unused.set_visible(False)

    def height(narrow: bool) -> float:
        return (len(rows) if narrow else -(-len(rows) // 2)) * (0.75 + 0.27 * len(found))

    return _picture("The four metrics of every target with their 95 % intervals", draw, height)


def years_picture(report: JobReport, question_set: str) -> Picture | None:
    """What the judged target says of each year beside the base model; None when the questions name no years."""
    by_target = {result.target: result.sets.get(question_set) for result in report.targets}
    judged = by_target.get(report.verdict.target or "")
    base = by_target.get(BASE)
    if judged is None or not judged.by_year or len(judged.by_year) < 2:
        return None
    years: Sequence[YearShares] = judged.by_year

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        if base is not None and base.by_year:
            _years(axes, base.by_year, "unlearn_leaked", _SOFT, "base: true answer said", hollow=True)
        _years(axes, years, "retain_correct", _KEEP, "answered correctly")
        _years(axes, years, "unlearn_leaked", _BAD, "true answer said" if judged.unlearn_forgotten else "answered")
        if report.cutoff:
            _cutoff(axes, report.cutoff)
        axes.set(ylim=(-0.03, 1.03), yticks=[0, 0.5, 1], yticklabels=["0", "50", "100 %"])
        axes.locator_params(axis="x", integer=True, nbins=5 if narrow else 10)
        axes.tick_params(axis="y", length=0)
        figure.legend(loc="outside upper left", ncols=1 if narrow else 3)

    target = report.verdict.target
    return _picture(
        f"What {target} says of each year, with 95 % intervals", draw, lambda narrow: 3.4 if narrow else 3.1
    )


def drift_picture(rows: Sequence[DriftRow]) -> Picture | None:
    """How many answers each quantization changes, to the worse on the right; None when it changes none."""
    changes = [(row.target, *_changes(row)) for row in rows]
    most = max((number for _, *numbers in changes for number in numbers), default=0)
    if most == 0:
        return None

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        for place, (_, leaks, hidden, lost, won) in enumerate(changes):
            for offset, worse, better in ((-0.18, leaks, hidden), (0.18, lost, won)):
                colour = _BAD if offset < 0 else _FAIR
                axes.barh(place + offset, worse, 0.3, color=colour)
                axes.barh(place + offset, -better, 0.3, color=_GOOD)
                _number(axes, worse, place + offset)
                _number(axes, -better, place + offset)
        _categories(axes, [target for target, *_ in changes])
        axes.axvline(0, color=_SOFT, linewidth=0.8)
        axes.set(xlim=(-most * 1.25 - 1, most * 1.25 + 1), xticks=[])
        axes.barh([0], [0], color=_BAD, label="leaks again")
        axes.barh([0], [0], color=_FAIR, label="correct no more")
        axes.barh([0], [0], color=_GOOD, label="better than merged")
        figure.legend(loc="outside upper left", ncols=1 if narrow else 3)

    def height(narrow: bool) -> float:
        return (1.0 if narrow else 0.6) + 0.5 * len(changes)

    return _picture("How many answers each quantization changes against the merged model", draw, height)


def attacks_picture(rows: Sequence[AttackRow]) -> Picture | None:
    """How often each attack brings the truth out of a target, base and control; None without attacks."""
    if not rows:
        return None

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        for place, row in enumerate(rows):
            for share, below, colour, name in (
                (row.leaked, -0.2, _BAD, row.target),
                (row.base, 0.04, _SOFT, BASE),
                (row.control, 0.28, _KEEP, CONTROL),
            ):
                if share is not None:
                    _interval(axes, share, place + below, colour, colour != _BAD, name if place == 0 else "")
        _categories(axes, [row.attack.replace("_", " ") for row in rows])
        _percent_axis(axes)
        figure.legend(loc="outside upper left", ncols=1 if narrow else 3)

    return _picture("How often each attack brings the true answer out", draw, lambda _: 0.9 + 0.5 * len(rows))


def _metric(axes: Axes, bars: Bars, found: Sequence[tuple[str, SetShares]]) -> None:
    """One metric's panel: the region of the target in green, that of the minimum in amber."""
    inner, outer = (bars.target, 1.0) if bars.higher_is_better else (0.0, bars.target)
    middle = sorted((bars.minimum, bars.target))
    axes.axvspan(inner, outer, color=_GOOD, alpha=0.12, linewidth=0)
    axes.axvspan(*middle, color=_FAIR, alpha=0.12, linewidth=0)
    for place, (target, shares) in enumerate(found):
        share: Share | None = getattr(shares, bars.score)
        if share is None:
            axes.annotate("not measured", (0.02, place), color=_SOFT, va="center", fontsize=8)
        else:
            colour = _SOFT if target in REFERENCES else _OF_TONE[tone_of(bars.score, share)]
            _interval(axes, share, place, colour, hollow=target in REFERENCES)
    sign = ">" if bars.higher_is_better else "<"
    axes.set_title(f"{bars.name}  (target {sign} {100 * bars.target:.0f} %)", loc="left", color=_INK, fontsize=9)
    _categories(axes, [target for target, _ in found])
    _percent_axis(axes)


def _interval(axes: Axes, share: Share, place: float, colour: str, hollow: bool = False, label: str = "") -> None:
    """A dot at the share, a line along its interval."""
    axes.plot([share.low, share.high], [place, place], color=colour, linewidth=2, alpha=0.45, solid_capstyle="round")
    axes.plot(share.value, place, "o", color=colour, markerfacecolor=_PAPER if hollow else colour, label=label or None)


def _categories(axes: Axes, names: Sequence[str]) -> None:
    """Names down the left side, the first on top."""
    axes.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.4, -0.6))
    axes.tick_params(axis="y", length=0, labelcolor=_INK)


def _percent_axis(axes: Axes) -> None:
    ticks = (0, 0.25, 0.5, 0.75, 1)
    axes.set(xlim=(-0.02, 1.02), xticks=ticks, xticklabels=["0", "25", "50", "75", "100 %"])
    axes.grid(axis="x", color=_LINE, linewidth=0.6)


def _years(axes: Axes, years: Iterable[YearShares], score: str, colour: str, label: str, hollow: bool = False) -> None:
    measured = [(year.year, share) for year in years if (share := getattr(year, score)) is not None]
    if not measured:
        return
    if not hollow:
        for year, share in measured:
            axes.plot([year, year], [share.low, share.high], color=colour, linewidth=1.6, alpha=0.3)
    dots = [year for year, _ in measured], [share.value for _, share in measured]
    axes.plot(*dots, "o", color=colour, markersize=4, markerfacecolor=_PAPER if hollow else colour, label=label)


def _cutoff(axes: Axes, cutoff: str) -> None:
    """A line after the last day of what is kept; a year's dot stands for its middle."""
    day = date.fromisoformat(cutoff)
    place = day.year + day.timetuple().tm_yday / 366 - 0.5
    left, right = axes.get_xlim()
    if left <= place <= right:
        axes.axvline(place, color=_SOFT, linewidth=1, linestyle=(0, (4, 3)))
        above = axes.get_xaxis_transform()  # years across, shares of the plot's height up
        axes.text(place, 1.03, f"cutoff {cutoff}", transform=above, ha="center", color=_SOFT, fontsize=8)


def _changes(row: DriftRow) -> tuple[int, int, int, int]:
    """Leaks gained and lost, correct answers lost and gained."""
    leaked, correct = row.leaked, row.correct
    return (
        leaked.gained if leaked else 0,
        leaked.lost if leaked else 0,
        correct.lost if correct else 0,
        correct.gained if correct else 0,
    )


def _number(axes: Axes, value: int, place: float) -> None:
    if value:
        side = ("left", 4) if value > 0 else ("right", -4)
        axes.annotate(
            str(abs(value)), (value, place), (side[1], 0), textcoords="offset points", ha=side[0], va="center",
            color=_INK, fontsize=8,
        )  # fmt: skip


def _picture(description: str, draw: Callable[[Figure, bool], None], height: Callable[[bool], float]) -> Picture:
    """Draws both widths."""
    wide, narrow = (_svg(draw, narrow, width, height(narrow)) for narrow, width in ((False, WIDE), (True, NARROW)))
    return Picture(description, wide, narrow)


def _svg(draw: Callable[[Figure, bool], None], narrow: bool, width: float, height: float) -> str:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with _style(narrow):
        figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(h_pad=0.09, w_pad=0.09))
        draw(figure, narrow)
        for axes in figure.axes:
            axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _for_the_page(drawn.getvalue())


def _style(narrow: bool) -> AbstractContextManager[Any]:
    import matplotlib

    return matplotlib.rc_context(
        {
            "svg.fonttype": "none",  # text stays text: it can be searched, and has the page's font
            "svg.hashsalt": f"cutoff {narrow}",  # the same report, the same bytes; both widths apart
            "font.size": 9,
            "text.color": _INK,
            "axes.labelcolor": _SOFT,
            "xtick.color": _SOFT,
            "ytick.color": _SOFT,
            "xtick.labelsize": 8,
            "xtick.major.size": 0,
            "axes.axisbelow": True,
            "lines.markersize": 6,
            "legend.frameon": False,
            "legend.labelcolor": _INK,
            "legend.handletextpad": 0.3,
        }
    )


def _for_the_page(svg: str) -> str:
    """The <svg> element alone, its colours named, its ids its own."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r'<svg [^>]*viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', body, count=1)
    body = re.sub(r' id="[a-z0-9.]+_[0-9]+"|font-family: [^;"]*;', "", body)  # matplotlib's names, which repeat
    for colour, name in _VARIABLES.items():
        body = body.replace(colour, f"var(--{name})")
    return body.strip()
