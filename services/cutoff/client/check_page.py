"""The report of `cutoff check` as one HTML page that loads nothing from anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from cutoff.client.check import verdict
from cutoff.datasets import DataReport, Finding
from cutoff.datasets.report import Bin, Lengths, TokenCounts

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 760, 240, 56, 34
"""Of the drawing, and what its axes take of it, in pixels."""

_STYLE = """
:root { color-scheme: light dark; --paper: #fbfbfa; --card: #fff; --ink: #1c1e21; --soft: #667; --line: #e3e4e8;
  --retain: #2f6fde; --unlearn: #d97a1e; --error: #c62f3b; --warning: #a86200; --note: #667; --good: #1d7f4e; }
@media (prefers-color-scheme: dark) { :root { --paper: #15171a; --card: #1e2126; --ink: #e7e9ec; --soft: #9aa1ab;
  --line: #32363d; --retain: #6da2ff; --unlearn: #f0a356; --error: #ff7d85; --warning: #f2b855; --note: #9aa1ab;
  --good: #5fce96; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
p { margin: .4rem 0; } .soft { color: var(--soft); }
.badge { display: inline-block; padding: .1rem .6rem; border-radius: 1rem; border: 1px solid currentColor;
  font-size: .85rem; font-weight: 600; white-space: nowrap; }
.error { color: var(--error); } .warning { color: var(--warning); } .note { color: var(--note); }
.good { color: var(--good); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .9rem 1.1rem;
  margin: .6rem 0; overflow-x: auto; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem .35rem 0; text-align: right; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 500; font-size: .88rem; } tr:last-child td { border-bottom: 0; }
th:first-child, td:first-child, .text td, .text th { text-align: left; }
code { font: .88em ui-monospace, monospace; }
svg { display: block; width: 100%; height: auto; } svg text { fill: var(--soft); font-size: 12px; }
.retain { fill: var(--retain); } .unlearn { fill: var(--unlearn); } .axis { stroke: var(--line); }
.limit { stroke: var(--warning); stroke-dasharray: 5 4; } svg .limit-text { fill: var(--warning); }
.key { display: inline-block; width: .8rem; height: .8rem; border-radius: .2rem; margin: 0 .35rem 0 1rem;
  vertical-align: -.05rem; }
"""


def check_page(report: DataReport, job: str) -> str:
    """The page, complete. Every text of the data is escaped, and no script runs."""
    tone = "error" if report.fault_count else "warning" if report.warnings() else "good"
    parts = [
        f"<h1>{escape(job)}: data check</h1>",
        f'<p><span class="badge {tone}">{escape(verdict(report))}</span></p>',
        _findings(report.findings),
        _faults(report),
        _sets(report),
        _lengths(report),
        _refusals(report),
        _files(report),
    ]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{escape(job)}: data check</title>
<style>{_STYLE}</style>
</head>
<body><main>
{"".join(parts)}
</main></body>
</html>
"""


def _findings(findings: Iterable[Finding]) -> str:
    cards = [_finding(finding) for finding in findings]
    return f"<h2>What was found</h2>{''.join(cards)}" if cards else ""


def _finding(finding: Finding) -> str:
    more = ", ..." if finding.count > len(finding.places) else ""
    places = f'<p class="soft"><code>{escape(", ".join(finding.places) + more)}</code></p>' if finding.places else ""
    fix = f'<p class="soft">What to do: {escape(finding.fix)}</p>' if finding.fix else ""
    badge = f'<span class="badge {finding.severity}">{finding.severity}</span>'
    return f'<div class="card"><p>{badge} {escape(finding.what)}</p>{places}{fix}</div>'


def _faults(report: DataReport) -> str:
    if not report.fault_count:
        return ""
    rows = [(f"<code>{escape(each.where)}</code>", escape(each.what), escape(each.fix)) for each in report.faults]
    rest = report.fault_count - len(rows)
    more = f'<p class="soft">and {rest:,} more</p>' if rest else ""
    table = _table(("where", "what is wrong", "what to do"), rows, text=True)
    return f'<h2 id="faults">Faults: {report.fault_count:,}</h2><div class="card">{table}{more}</div>'


def _sets(report: DataReport) -> str:
    lengths = {(each.set, each.side): each for each in report.lengths.sets} if report.lengths else {}
    headings = ("set", "examples", "true answers", "years", "tokens", "median", "95 %", "most", "too long")
    rows = [
        (
            f"{each.side} {each.set}",
            *(f"{number:,}" for number in (each.examples, each.true_answers, each.years)),
            *_figures(lengths.get((each.set, each.side))),
        )
        for each in report.sets
    ]
    return f'<h2>Sets</h2><div class="card">{_table(headings, rows)}</div>'


def _figures(lengths: Lengths | None) -> Sequence[str]:
    if lengths is None:
        return ["-"] * 5
    numbers = (lengths.tokens, lengths.median, lengths.p95, lengths.most, lengths.too_long)
    return [f"{number:,}" for number in numbers]


def _lengths(report: DataReport) -> str:
    counts = report.lengths
    if counts is None or not counts.histogram:
        return f'<h2>Tokens</h2><p class="soft">Not measured: {escape(report.lengths_missing or "no examples")}.</p>'
    legend = (
        '<p class="soft">Examples by their length in tokens, training and validation together.'
        '<svg class="key" viewBox="0 0 1 1"><rect class="retain" width="1" height="1"/></svg>retain'
        '<svg class="key" viewBox="0 0 1 1"><rect class="unlearn" width="1" height="1"/></svg>unlearn</p>'
    )
    return f'<h2>Tokens</h2><div class="card">{legend}{_histogram(counts)}</div>'


def _histogram(counts: TokenCounts) -> str:
    bins = counts.histogram
    most = max(bar.retain + bar.unlearn for bar in bins)
    step = (_WIDTH - _LEFT) / len(bins)
    tall = _HEIGHT - _BOTTOM - 16
    floor = _HEIGHT - _BOTTOM
    every = max(1, len(bins) // 8)
    drawn = [_axis(floor, tall, most)]
    for at, bar in enumerate(bins):
        left = _LEFT + at * step
        drawn.append(_bar(bar, left, step, floor, tall / most))
        if at % every == 0:
            label = f"{bar.first}"
            drawn.append(f'<text x="{left + step / 2:.1f}" y="{floor + 18}" text-anchor="middle">{label}</text>')
    drawn.append(_limit(counts, step, floor))
    label = f"Histogram of lengths: {bins[0].first} to {bins[-1].last} tokens"
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{"".join(drawn)}</svg>'


def _axis(floor: float, tall: float, most: int) -> str:
    lines = []
    for share in (0.0, 0.5, 1.0):
        y = floor - share * tall
        lines.append(f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        lines.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{round(share * most):,}</text>')
    return "".join(lines)


def _bar(bar: Bin, left: float, step: float, floor: float, scale: float) -> str:
    """Two stacked rectangles, and what they stand for where the pointer rests."""
    width, retain, unlearn = max(1.0, step - 2), bar.retain * scale, bar.unlearn * scale
    span = f"{bar.first} tokens" if bar.first == bar.last else f"{bar.first} to {bar.last} tokens"
    rectangles = (
        f'<rect class="retain" x="{left + 1:.1f}" y="{floor - retain:.1f}" width="{width:.1f}" height="{retain:.1f}"/>'
        f'<rect class="unlearn" x="{left + 1:.1f}" y="{floor - retain - unlearn:.1f}" width="{width:.1f}" '
        f'height="{unlearn:.1f}"/>'
    )
    return f"<g><title>{span}: {bar.retain:,} retain, {bar.unlearn:,} unlearn</title>{rectangles}</g>"


def _limit(counts: TokenCounts, step: float, floor: float) -> str:
    """A line where max_seq_length cuts, if it is in the picture."""
    bins, limit = counts.histogram, counts.max_seq_length
    if not bins[0].first <= limit <= bins[-1].last:
        return ""
    span = bins[0].last - bins[0].first + 1
    x = _LEFT + (limit + 1 - bins[0].first) / span * step
    anchor, shift = ("end", -6) if x > _WIDTH / 2 else ("start", 6)
    return (
        f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{floor}"/>'
        f'<text class="limit-text" x="{x + shift:.1f}" y="14" text-anchor="{anchor}">max_seq_length {limit:,}</text>'
    )


def _refusals(report: DataReport) -> str:
    refusals = report.refusals
    if refusals is None:
        return ""
    share = 100 * refusals.commonest_count / refusals.examples
    return (
        f'<h2>Refusals</h2><div class="card"><p>{refusals.examples:,} training refusals in {refusals.distinct:,} '
        f"wordings. The commonest, {share:.1f} % of them:</p><p>“{escape(refusals.commonest)}”</p></div>"
    )


def _files(report: DataReport) -> str:
    rows = [
        (f"<code>{escape(each.name)}</code>", each.field, f"{each.examples:,}", f"{each.size_bytes:,}")
        for each in report.files
    ]
    return f'<h2>Files</h2><div class="card">{_table(("file", "field", "examples", "bytes"), rows)}</div>'


def _table(headings: Iterable[str], rows: Iterable[Iterable[str]], text: bool = False) -> str:
    """A table; the cells are HTML already."""
    head = "".join(f"<th>{heading}</th>" for heading in headings)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table{' class=text' if text else ''}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
