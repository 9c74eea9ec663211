"""The chart of the report, drawn by pygal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pygal
from pygal.style import CleanStyle

from tests.benchmarks.figures import Series

NAMES = {"drain": "drain: jobs that wait", "through": "enqueue and run"}


def draw(rates: Mapping[str, Sequence[Series]]) -> str:
    """Jobs a second of all who did the same work, as SVG.

    Args:
        rates: by what was done; each has xargs, queuectl and the peers that can do it.
    """
    names = list(dict.fromkeys(series.name for group in rates.values() for series in group))
    # No script: the chart is looked at inside of a page. No prefix of chance: it changes only with its figures and day.
    chart = pygal.HorizontalBar(
        style=CleanStyle, js=[], width=900, height=120 + 50 * len(names), legend_at_bottom=True, print_values=True,
        value_formatter=lambda value: f"{value:,.0f}", x_title="jobs a second, two at a time: more is better",
        show_y_guides=False, no_prefix=True,
    )  # fmt: skip
    chart.title = "Jobs a second"
    chart.x_labels = names[::-1]  # drawn from below
    for what, group in rates.items():
        medians = {series.name: series.median for series in group}
        chart.add(NAMES[what], [medians.get(name) for name in names[::-1]])
    text: str = chart.render(is_unicode=True)
    return text
