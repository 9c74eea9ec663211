"""Tables: aligned as plain text, and on a terminal of any width from 20 columns on."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from rich.console import Console

from queuectl_client.render import people, views
from queuectl_client.render.people import Cell, Column, Part, Table, fitting, plain, renderable
from queuectl_protocol.jobs import Attempt, Job, JobState, Outcome, Worker, WorkerState
from queuectl_protocol.messages import DaemonStatus, StatusResult

NOW = datetime(2025, 1, 31, 12, 0, 0, tzinfo=UTC)
EVIL = "\x1b[31mred\x9b0m \u202etxet\r\n"


def job(
    state: JobState = JobState.PENDING,
    *,
    command: str | None = "echo hello",
    argv: list[str] | None = None,
    run_at: datetime = NOW,
    label: str = "",
    error: str | None = None,
    history: list[Attempt] | None = None,
) -> Job:
    return Job(
        id="abcdefghjkmn",
        queue="default",
        state=state,
        command=UNSET if command is None else command,
        argv=UNSET if argv is None else argv,
        priority=0,
        attempts=1,
        max_retries=3,
        timeout=0,
        label=label,
        run_at=run_at,
        created_at=NOW - timedelta(minutes=5),
        updated_at=NOW - timedelta(minutes=2),
        error=error,
        history=UNSET if history is None else history,
    )


def worker(state: WorkerState, pid: int, of: str | None = None) -> Worker:
    return Worker(
        id=f"w{pid}",
        pid=pid,
        state=state,
        job=of,
        attempt=None if of is None else 1,
        started_at=NOW,
        job_started_at=None if of is None else NOW - timedelta(seconds=5),
    )


def status(*workers: Worker, stopping: bool = False) -> StatusResult:
    daemon = DaemonStatus(
        version="1",
        pid=1,
        started_at=NOW,
        state_dir="/s",
        socket="/r",
        containment="subreaper",
        desired_workers=len(workers),
        stopping=stopping,
    )
    return StatusResult(counts={JobState.PENDING: 3}, workers=list(workers), daemon=daemon)


def drawn(parts: list[Part], width: int, *, color: bool = False) -> str:
    output = io.StringIO()
    terminal = Console(
        file=output, width=width, force_terminal=color, highlight=False, markup=False, emoji=False, no_color=not color
    )
    terminal.print(renderable(parts, width), end="")
    return output.getvalue()


ATTEMPT = Attempt(
    number=1, worker="w1", started_at=NOW, ended_at=NOW, outcome=Outcome.FAILED, exit_code=1, error="no " * 30
)
VIEWS: dict[str, list[Part]] = {
    "list": [Table(views.LIST_COLUMNS, [views.list_row(job(label=EVIL, command=EVIL * 9), NOW)])],
    "dead": [Table(views.DEAD_COLUMNS, [views.dead_row(job(JobState.DEAD, error=EVIL * 9), NOW)])],
    "show": views.job_parts(job(command=EVIL * 9, label=EVIL, error=EVIL, history=[ATTEMPT]), NOW),
    "status": views.status_parts(status(*(worker(WorkerState.BUSY, pid, "x" * 40) for pid in range(100, 120))), NOW),
}


@pytest.mark.parametrize("width", [20, 21, 33, 40, 60, 80, 100, 200])
@pytest.mark.parametrize("view", VIEWS)
def test_everything_fits_a_terminal_of_any_width(view: str, width: int) -> None:
    for line in drawn(VIEWS[view], width).splitlines():
        assert len(line.rstrip()) <= width


@pytest.mark.parametrize("view", VIEWS)
def test_no_escape_of_others_reaches_a_terminal(view: str) -> None:
    text = drawn(VIEWS[view], 80)
    assert "\x1b" not in text
    assert "\x9b" not in text
    assert "\u202e" not in text
    assert "\r" not in text


@pytest.mark.parametrize("view", ["list", "dead", "show"])
def test_nor_does_it_reach_a_file(view: str) -> None:
    text = plain(VIEWS[view])
    assert r"\x1b[31mred\x9b0m \u202etxet\r" in text
    assert not set(text) & set("\x1b\x9b\u202e\r")


def test_colours_are_our_own_only() -> None:
    text = drawn([Table((Column("A"),), [[Cell("\x1b[31mx", "green")]])], 40, color=True)
    assert r"\x1b[31mx" in text
    assert "\x1b[32m" in text


def test_markup_in_a_text_is_text() -> None:
    assert "[bold]x[/bold] :smile:" in drawn([Cell("[bold]x[/bold] :smile:")], 40)


def test_plain_tables_are_aligned_and_an_empty_cell_counts() -> None:
    table = Table(
        (Column("ID"), Column("N", right=True), Column("TEXT")),
        [[Cell("a"), Cell("1"), Cell("x y")], [Cell("long"), Cell("10"), Cell("")]],
    )
    assert plain([table]) == "ID     N  TEXT\na      1  x y\nlong  10  -\n"


def test_pages_of_a_plain_table_stay_aligned() -> None:
    widths: dict[int, int] = {}
    columns = (Column("ID"), Column("T"))
    first = plain([Table(columns, [[Cell("long-id"), Cell("x")]], widths=widths)])
    second = plain([Table(columns, [[Cell("b"), Cell("y")]], heading=False, widths=widths)])
    assert first.splitlines()[1].index("x") == second.index("y")


columns_strategy = st.lists(
    st.tuples(st.integers(1, 60), st.integers(0, 5), st.booleans()), min_size=1, max_size=8
)  # width, rank, flexible


@given(columns_strategy, st.integers(20, 200))
def test_fitting_keeps_what_must_stay_and_wastes_nothing(shape: list[tuple[int, int, bool]], width: int) -> None:
    columns = [Column("", rank=rank, flexible=flexible) for _, rank, flexible in shape]
    widths = [natural for natural, _, _ in shape]
    room = fitting(columns, widths, width)
    assert all(at in room for at, column in enumerate(columns) if column.rank == 0)
    assert all(1 <= room[at] <= widths[at] for at in room)
    total = sum(room.values()) + people.GAP * (len(room) - 1)
    if sum(widths) + people.GAP * (len(widths) - 1) <= width:
        assert room == dict(enumerate(widths))
    if any(columns[at].rank for at in room):
        assert total <= width


@pytest.mark.parametrize(
    ("state", "run_at", "expected"),
    [
        (JobState.PENDING, NOW + timedelta(seconds=5), "in 5 s"),
        (JobState.PENDING, NOW - timedelta(minutes=3), "3 m ago"),
        (JobState.FAILED, NOW + timedelta(minutes=1), "in 1 m"),
        (JobState.COMPLETED, NOW + timedelta(minutes=1), "2 m ago"),
    ],
)
def test_the_time_that_matters(state: JobState, run_at: datetime, expected: str) -> None:
    assert views.when(job(state, run_at=run_at), NOW) == expected


def test_an_argument_vector_is_shown_as_a_shell_would_read_it() -> None:
    assert views.command_of(job(command=None, argv=["echo", "a b", "$x"])) == "echo 'a b' '$x'"


def test_show_tells_a_script_line_by_line() -> None:
    text = plain(views.job_parts(job(command="set -e\nmake\x1b"), NOW))
    assert "command:    set -e\n" in text
    assert "make\\x1b\n" in text


def test_status_names_all_six_states_and_the_active_workers() -> None:
    text = plain(views.status_parts(status(worker(WorkerState.BUSY, 101, "job1"), worker(WorkerState.IDLE, 102)), NOW))
    lines = [line.split() for line in text.splitlines()]
    for state in JobState:
        assert [state.value, "3" if state is JobState.PENDING else "0"] in lines
    assert "Workers: 2 active (PID 101, 102)" in text
    assert ["w101", "101", "busy", "job1", "1", "5", "s"] in lines


def test_a_worker_that_is_being_ended_is_not_active() -> None:
    text = plain(views.status_parts(status(worker(WorkerState.ENDING, 101), worker(WorkerState.IDLE, 102)), NOW))
    assert "Workers: 1 active (PID 102)" in text


def test_without_workers_status_says_how_to_start_some() -> None:
    assert "queuectl worker start --count 2" in plain(views.status_parts(status(), NOW))


def test_status_says_that_the_daemon_is_stopping() -> None:
    assert "is stopping" in plain(views.status_parts(status(stopping=True), NOW))
