"""Jobs, attempts and workers as people see them."""

from __future__ import annotations

from datetime import UTC, datetime

from queuectl_client.render.no_workers import START
from queuectl_client.render.people import Cell, Column, Part, Table, state_cell
from queuectl_client.render.times import moment, relative, span
from queuectl_protocol.states import ENDED, STATES

TYPE_CHECKING = False  # as in queuectl_protocol.trust
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from queuectl_protocol.jobs import Attempt, Job, Worker
    from queuectl_protocol.messages import StatusResult

LIST_COLUMNS = (
    Column("ID"),
    Column("STATE", rank=1),
    Column("QUEUE", rank=6),
    Column("PRIO", right=True, rank=5),
    Column("TRIES", right=True, rank=4),
    Column("WHEN", rank=3),
    Column("COMMAND", rank=2, flexible=True),
    Column("LABEL", rank=7),
)
DEAD_COLUMNS = (
    Column("ID"),
    Column("QUEUE", rank=5),
    Column("TRIES", right=True, rank=4),
    Column("DIED", rank=3),
    Column("EXIT", right=True, rank=2),
    Column("ERROR", rank=1, flexible=True),
    Column("COMMAND", rank=6, flexible=True),
)


def command_of(job: Job) -> str:
    """The command line, as a shell would read it."""
    if job.argv:
        import shlex  # noqa: PLC0415 - only some jobs need it

        return shlex.join(job.argv)
    return job.command or ""


def when(job: Job, now: datetime) -> str:
    """The time about a job that matters most in its state."""
    if job.state in {"pending", "failed"} and job.run_at > now:
        return relative(job.run_at, now)
    return relative(job.run_at if job.state == "pending" else job.updated_at, now)


def list_row(job: Job, now: datetime) -> list[Cell]:
    state = "cancelling" if job.cancelling else str(job.state)
    return [
        Cell(job.id),
        state_cell(state),
        Cell(job.queue),
        Cell(str(job.priority)),
        Cell(_tries(job)),
        Cell(when(job, now)),
        Cell(command_of(job)),
        Cell(job.label),
    ]


def dead_row(job: Job, now: datetime) -> list[Cell]:
    return [
        Cell(job.id),
        Cell(job.queue),
        Cell(_tries(job)),
        Cell(relative(job.updated_at, now)),
        Cell("" if job.exit_code is None else str(job.exit_code)),
        Cell(job.error or ""),
        Cell(command_of(job)),
    ]


def _tries(job: Job) -> str:
    return f"{job.attempts}/{max(1, job.max_retries)}"


def job_parts(job: Job, now: datetime, *, no_workers: bool = False) -> list[Part]:
    """Everything about one job; `no_workers` is why it waits, if it does."""
    facts: list[tuple[str, Cell]] = [("id", Cell(job.id, "bold"))]
    state = f"{job.state}, being cancelled" if job.cancelling else str(job.state)
    facts.append(("state", Cell(state, state_cell(job.state).style)))
    # A script of several lines is easier to read as such; each line is made visible on its own.
    lines = command_of(job).split("\n")
    facts.append(("argv" if job.argv else "command", Cell(lines[0])))
    facts += [("", Cell(line)) for line in lines[1:]]
    if job.label:
        facts.append(("label", Cell(job.label)))
    facts += [
        ("queue", Cell(job.queue)),
        ("priority", Cell(str(job.priority))),
        ("attempts", Cell(f"{job.attempts} of {max(1, job.max_retries)}")),
        ("timeout", Cell(span(job.timeout) if job.timeout else "none")),
        ("directory", Cell(job.cwd or "the home of the daemon's user")),
        ("created", Cell(moment(job.created_at, now))),
        ("updated", Cell(moment(job.updated_at, now))),
    ]
    if job.state in {"pending", "failed"}:
        free = f"no worker runs; {START}" if no_workers else "as soon as a worker is free"
        facts.append(("runs", Cell(moment(job.run_at, now) if job.run_at > now else free)))
    if job.exit_code is not None:
        facts.append(("exit code", Cell(str(job.exit_code))))
    if job.error:
        facts.append(("error", Cell(job.error, "red")))
    if isinstance(job.env, dict):
        variables = [f"{name}={value}" for name, value in sorted(job.env.items())] or ["(nothing added)"]
        facts += [("environment" if at == 0 else "", Cell(text)) for at, text in enumerate(variables)]
    columns = (Column("", rank=0), Column("", flexible=True, wrap=True))
    parts: list[Part] = [_facts(columns, facts)]
    if job.history:
        parts += [Cell(""), attempts_table(job.history, now)]
    if job.older_attempts:
        parts.append(Cell(f"and {job.older_attempts:,} older attempts", "dim"))
    return parts


def _facts(columns: Sequence[Column], facts: Iterable[tuple[str, Cell]]) -> Table:
    return Table(columns, [[Cell(f"{name}:" if name else " ", "dim"), value] for name, value in facts], heading=False)


def attempts_table(attempts: Iterable[Attempt], now: datetime) -> Table:
    columns = (
        Column("ATTEMPT", right=True),
        Column("OUTCOME"),
        Column("EXIT", right=True, rank=2),
        Column("STARTED", rank=4),
        Column("TOOK", right=True, rank=3),
        Column("WORKER", rank=5),
        Column("ERROR", rank=1, flexible=True, wrap=True),
    )
    return Table(columns, [_attempt_row(attempt, now) for attempt in attempts])


def _attempt_row(attempt: Attempt, now: datetime) -> list[Cell]:
    outcome = "running" if attempt.outcome is None else str(attempt.outcome)
    style = {"completed": "green", "running": "blue", "cancelled": "dim", "interrupted": "dim"}.get(outcome, "red")
    exited = "" if attempt.exit_code is None else str(attempt.exit_code)
    return [
        Cell(str(attempt.number)),
        Cell(outcome, style),
        Cell(exited),
        Cell(relative(attempt.started_at, now)),
        Cell(span(((attempt.ended_at or now) - attempt.started_at).total_seconds())),
        Cell(attempt.worker),
        Cell(attempt.error or ""),
    ]


def workers_table(workers: Iterable[Worker], now: datetime) -> Table:
    columns = (
        Column("WORKER", rank=3),
        Column("PID", right=True),
        Column("STATE", rank=1),
        Column("JOB", flexible=True),
        Column("ATTEMPT", right=True, rank=4),
        Column("FOR", right=True, rank=2),
    )
    return Table(columns, [_worker_row(worker, now) for worker in workers])


def _worker_row(worker: Worker, now: datetime) -> list[Cell]:
    styles = {"busy": "blue", "idle": "green", "ending": "red"}
    return [
        Cell(worker.id),
        Cell(str(worker.pid)),
        Cell(worker.state, styles.get(worker.state, "yellow")),
        Cell(worker.job or ""),
        Cell("" if worker.attempt is None else str(worker.attempt)),
        Cell(span((now - worker.job_started_at).total_seconds()) if worker.job_started_at else ""),
    ]


def status_parts(status: StatusResult, now: datetime) -> list[Part]:
    """Counts of all states, and the workers."""
    columns = (Column("STATE"), Column("JOBS", right=True))
    counts = {str(state): count for state, count in status.counts.items()}
    rows = [[state_cell(state), Cell(f"{counts.get(state, 0)}")] for state in STATES]
    parts: list[Part] = [Table(columns, rows), Cell("")]
    active = [worker for worker in status.workers if worker.state != "ending"]
    if status.daemon.stopping:
        parts.append(Cell("The daemon is stopping: it lets running jobs finish, and starts no more.", "yellow"))
    if active:
        pids = ", ".join(str(worker.pid) for worker in active)
        parts.append(Cell(f"Workers: {len(active)} active (PID {pids})", "bold"))
    else:
        parts.append(Cell("Workers: 0 active. Start some with `queuectl worker start --count 2`.", "yellow"))
    if status.workers:
        parts.append(workers_table(status.workers, now))
    parts.append(Cell(f"Containment: {status.daemon.containment}", "dim"))
    return parts


def now() -> datetime:
    return datetime.now(UTC)


def hint_for(error: str | None) -> str:
    """What to do about an attempt's error, where that is known; "" where it is not."""
    if error is not None and error.startswith("can't enter the working directory"):
        return (
            "the job runs as the daemon's user, who may not see that directory (a machine's service sees no home): "
            "`--cwd DIR` names another, and `--clean-env` leaves your environment out"
        )
    return ""


def ended_sentence(job: Job) -> str:
    """How a job ended, for a remark."""
    if job.state not in ENDED:
        return f"job {job.id} is {job.state}"
    reason = job.error or ("" if job.exit_code is None else f"exit {job.exit_code}")
    return f"job {job.id} is {job.state}" + (f": {reason}" if reason and job.state != "completed" else "")
