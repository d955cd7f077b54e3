"""How cutoff's panels look: one place for the data source, colours, legends and layout.

A panel takes its queries as {legend: PromQL}; Grafana fills {{label}} in a legend.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import ascii_uppercase

from grafana_foundation_sdk.builders import bargauge, common, prometheus, stat, timeseries
from grafana_foundation_sdk.builders import dashboard as builder
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.common import (
    BarGaugeDisplayMode,
    BigValueGraphMode,
    BigValueTextMode,
    DataSourceRef,
    GraphThresholdsStyleMode,
    SortOrder,
    TooltipDisplayMode,
    VizOrientation,
)

PROMETHEUS = DataSourceRef(type_val="prometheus", uid="prometheus")
"""The data source of provisioning/datasources/prometheus.yaml."""

TAG = "cutoff"
WIDTH = 24
"""Columns of Grafana's grid."""

Queries = Mapping[str, str]
Panel = stat.Panel | timeseries.Panel | bargauge.Panel
Variable = builder.QueryVariable | builder.CustomVariable
Steps = Sequence[tuple[float | None, str]]

NO_LIMIT: Steps = [(None, "green")]
"""For what has no value that is bad by itself."""

NONE_IS_BEST: Steps = [(None, "green"), (1, "red")]
"""For counts of what should not be."""


def more_is_worse(yellow: float, red: float) -> Steps:
    """Green below `yellow`, red from `red` on."""
    return [(None, "green"), (yellow, "yellow"), (red, "red")]


def more_is_better(yellow: float, green: float) -> Steps:
    """Red below `yellow`, green from `green` on."""
    return [(None, "red"), (yellow, "yellow"), (green, "green")]


def numbers(title: str, description: str, unit: str, queries: Queries, steps: Steps, width: int) -> stat.Panel:
    """The newest values in the chosen time, large."""
    panel = stat.Panel().graph_mode(BigValueGraphMode.NONE).reduce_options(_newest()).height(4)
    _fill(panel, title, description, unit, queries, steps, width)
    return panel


def names(title: str, description: str, queries: Queries, steps: Steps, width: int) -> stat.Panel:
    """The legends of the series that are there now."""
    panel = stat.Panel().graph_mode(BigValueGraphMode.NONE).text_mode(BigValueTextMode.NAME).no_value("none")
    panel.reduce_options(_newest()).height(4)
    _fill(panel, title, description, units.NoUnit, queries, steps, width, now=True)
    return panel


def lines(
    title: str,
    description: str,
    unit: str,
    queries: Queries,
    steps: Steps = NO_LIMIT,
    width: int = 12,
    highest: float | None = None,
) -> timeseries.Panel:
    """Values over time, from 0 up; limits are dashed lines."""
    dashed = GraphThresholdsStyleMode.DASHED if len(steps) > 1 else GraphThresholdsStyleMode.OFF
    panel = (
        timeseries.Panel()
        .min(0)
        .fill_opacity(5)
        .thresholds_style(common.GraphThresholdsStyleConfig().mode(dashed))
        .legend(common.VizLegendOptions().show_legend(True))
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
        .height(8)
    )
    if highest is not None:
        panel.max(highest)
    _fill(panel, title, description, unit, queries, steps, width)
    return panel


def bars(
    title: str,
    description: str,
    unit: str,
    queries: Queries,
    steps: Steps = NO_LIMIT,
    width: int = 12,
    highest: float | None = None,
    now: bool = False,
) -> bargauge.Panel:
    """One bar for each series: its newest value in the chosen time, or with `now` only what is there now."""
    panel = (
        bargauge.Panel()
        .min(0)
        .orientation(VizOrientation.HORIZONTAL)
        .display_mode(BarGaugeDisplayMode.BASIC)
        .reduce_options(_newest())
        .height(8)
    )
    if highest is not None:
        panel.max(highest)
    _fill(panel, title, description, unit, queries, steps, width, now)
    return panel


def dashboard(
    uid: str, title: str, description: str, rows: Mapping[str, Sequence[Panel]], *variables: Variable
) -> model.Dashboard:
    """Lays panels out in rows and numbers them.

    Args:
        uid: What links to it name.
        title: As Grafana lists it.
        description: The question it answers.
        rows: Panels by the title of their row; they fill 24 columns from left to right.
        variables: What the reader chooses at the top.
    """
    board = (
        builder.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .timezone("browser")
        .time("now-3h", "now")
        .refresh("10s")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .link(_OtherDashboards("cutoff"))
    )
    for variable in variables:
        board.with_variable(variable)
    for name, panels in rows.items():
        board.with_row(builder.Row(name))
        for panel in panels:
            board.with_panel(panel)
    made = board.build()
    for number, each in enumerate(made.panels or [], start=1):
        each.id_val = number
    for choice in made.templating.list_val or []:
        # The SDK writes an interval variable's fields into every variable; Grafana's schema has them in none.
        choice.auto = choice.auto_min = choice.auto_count = None
    return made


def _fill(
    panel: Panel,
    title: str,
    description: str,
    unit: str,
    queries: Queries,
    steps: Steps,
    width: int,
    now: bool = False,
) -> None:
    thresholds = builder.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE)
    thresholds.steps([model.Threshold(value, color) for value, color in steps])
    panel.title(title).description(description).unit(unit).span(width).datasource(PROMETHEUS).thresholds(thresholds)
    for letter, (legend, expression) in zip(ascii_uppercase, queries.items(), strict=False):
        query = prometheus.Dataquery().ref_id(letter).expr(expression).legend_format(legend).datasource(PROMETHEUS)
        panel.with_target(query.instant() if now else query.range())


def _newest() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"])


class _OtherDashboards(builder.DashboardLink):
    def build(self) -> model.DashboardLink:
        link = self.type(model.DashboardLinkType.DASHBOARDS).tags([TAG]).keep_time(True)._internal
        link.placement = None  # type: ignore[assignment]  # the SDK's default hides the link in a menu
        return link
