"""What is measured: series of values, and figures made of two of them."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.benchmarks.targets import CHECKS


@dataclass(slots=True)
class Series:
    """Values of the same thing, one a round."""

    name: str
    unit: str
    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def text(self) -> str:
        """Median, with the least and the greatest value."""
        if not self.values:
            return "-"
        if len(self.values) == 1:
            return f"{number(self.median)} {self.unit}"
        return f"{number(self.median)} {self.unit} ({number(min(self.values))} to {number(max(self.values))})"


@dataclass(frozen=True, slots=True)
class Figure:
    """A value to be held against a check's bound.

    Attributes:
        check: its name.
        value: in the check's unit.
        ours: what it was made of.
        against: what ours was divided by, if it is a ratio.
    """

    check: str
    value: float
    ours: Series
    against: Series | None = None

    @property
    def met(self) -> bool:
        return CHECKS[self.check].met(self.value)


@dataclass(slots=True)
class Findings:
    """All that a run has found out.

    Attributes:
        figures: by the check's name.
        faults: topics that could not be measured: why.
        rates: of all who did the same work, by what was done (`drain`, `through`), ourselves and xargs included.
        notes: remarks about how it was measured, for the report.
    """

    figures: dict[str, Figure] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    rates: dict[str, list[Series]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def ratio(self, check: str, ours: Series, against: Series) -> None:
        """The ratio of two medians."""
        self._add(Figure(check, ours.median / against.median, ours, against))

    def value(self, check: str, ours: Series) -> None:
        """A median by itself."""
        self._add(Figure(check, ours.median, ours))

    def _add(self, figure: Figure) -> None:
        self.figures[figure.check] = figure
        verdict = "met" if figure.met else "MISSED"
        against = f", against {figure.against.text()}" if figure.against else ""
        check = CHECKS[figure.check]
        value = f"{number(figure.value)} {check.unit} ({check.wanted()}: {verdict})"
        say(f"{check.what}: {value}; {figure.ours.text()}{against}")

    def missed(self) -> list[str]:
        """Names of the checks that are not met, or were not measured, in the table's order."""
        return [name for name in CHECKS if name not in self.figures or not self.figures[name].met]


def alternate(rounds: int, measures: Mapping[str, tuple[str, Callable[[], float]]]) -> list[Series]:
    """Measure all of them one after the other, `rounds` times: what the machine does meanwhile meets all alike.

    Args:
        rounds: how often.
        measures: by name: the unit, and what returns one value.

    Returns:
        A series each, in the order of `measures`.
    """
    series = {name: Series(name, unit) for name, (unit, _) in measures.items()}
    names: Sequence[str] = list(measures)
    for turn in range(rounds):
        # Each round begins with another one: who comes first may find caches cold or a disk busy.
        shift = turn % len(names)
        for name in [*names[shift:], *names[:shift]]:
            series[name].values.append(measures[name][1]())
    return list(series.values())


def number(value: float) -> str:
    """Three significant digits, and all of them before the point."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def say(text: str) -> None:
    """Progress, for whoever waits."""
    print(f"  {text}", file=sys.stderr, flush=True)
