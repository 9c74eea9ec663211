"""What `enqueue`, `wait`, `cancel`, `list` and `status` do once they are parsed, by click or without it.

The client that they are given is a `Client`, or the direct way's, which answers with objects of the same fields. They
import nothing that a small client would have to pay for.
"""

from __future__ import annotations

import sys

from queuectl_client.render.output import DONE, REFUSED
from queuectl_client.render.remarks import remark
from queuectl_protocol.states import ENDED

TYPE_CHECKING = False  # as in queuectl_protocol.trust
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from queuectl_client.client import Client
    from queuectl_protocol.jobs import Job
    from queuectl_protocol.messages import JobSummary, StatusResult

    PrintJson = Callable[[object], None]

PAGE = 200
"""Jobs that are drawn at once: columns are as wide as these need."""


def say_if_nothing_runs(client: Client) -> None:
    """After an enqueue, to people only: a script knows, or can't do anything about it."""
    if sys.stderr.isatty():
        from queuectl_client.render.no_workers import say_if_none  # noqa: PLC0415 - for people only

        sys.stdout.flush()  # the ids come first
        say_if_none(client, "no worker runs, so nothing runs yet")


def wait(client: Client, jobs: Sequence[str], timeout: float | None, print_json: PrintJson | None) -> int:
    """Wait until all the jobs have ended, and print each with its state; the exit status."""
    from queuectl_client.render.no_workers import say_if_waiting  # noqa: PLC0415 - only some verbs need it

    say_if_waiting(client, jobs)
    found = client.wait(jobs, timeout=timeout)
    print_summaries(found, print_json)
    late = [job for job in found if job.state not in ENDED]
    if late:
        which = f"job {late[0].id}" if len(late) == 1 else f"{len(late)} of {len(found)} jobs"
        remark(f"{which} had not ended after {timeout:g} s")
    return DONE if all(job.state == "completed" for job in found) else REFUSED


def cancel(client: Client, jobs: Sequence[str], *, no_wait: bool, tolerant: bool = False) -> Sequence[JobSummary]:
    """Cancel jobs, and wait until running ones have ended; how they are then."""
    found = client.cancel(jobs, tolerant=tolerant)
    if not no_wait and any(job.state == "processing" for job in found):
        found = client.wait([job.id for job in found])
    # The command of a running one may have ended just before: of many, that is no news.
    return [job for job in found if job.state in {"cancelled", "processing"}] if tolerant else found


def print_cancelled(found: Sequence[JobSummary], print_json: PrintJson | None) -> int:
    """Print each job that `cancel` answered with; the exit status."""
    print_summaries(found, print_json)
    missed = [job for job in found if job.state not in {"cancelled", "processing"}]
    for job in missed:
        remark(f"job {job.id} was {job.state} before the cancel reached it")
    return REFUSED if missed else DONE


def print_summaries(jobs: Sequence[JobSummary] | Iterator[JobSummary], print_json: PrintJson | None) -> None:
    """A line a job: its id and its state, or JSON."""
    for job in jobs:
        if print_json is not None:
            print_json(job)
        else:
            sys.stdout.write(f"{job.id}\t{job.state}\n")
    sys.stdout.flush()  # the jobs come before remarks on them, where both streams go to one place


def list_jobs(
    client: Client, *, state: str, queue: str | None, limit: int, print_json: PrintJson | None
) -> None:  # fmt: skip
    """List jobs, newest first."""
    # One more than is shown tells whether there are more.
    found = client.list(None if state == "all" else state, queue=queue, limit=limit + 1 if limit else None)
    shown = print_jobs(found, limit, print_json)
    if shown == 0 and print_json is None and sys.stdout.isatty():
        remark_plainly("No jobs." if state == "all" else f"No {state} jobs (`--state all` lists all).")


def print_jobs(found: Iterator[Job], limit: int, print_json: PrintJson | None, *, dead: bool = False) -> int:
    """Print jobs, at most `limit` (0 is all), and say if there are more.

    Returns:
        How many were printed.
    """
    from itertools import islice  # noqa: PLC0415 - only some verbs need it

    wanted = islice(found, limit) if limit else found
    if print_json is None:
        count = _print_tables(wanted, dead=dead)
    else:
        count = 0
        for job in wanted:
            print_json(job)
            count += 1
    if count and limit and sys.stdout.isatty() and print_json is None and next(found, None) is not None:
        remark_plainly(f"There are more than these {limit}: `--limit 0` lists all.")
    return count


def remark_plainly(sentence: str) -> None:
    """Say something to a person at a terminal, after what was printed."""
    sys.stdout.flush()
    sys.stderr.write(f"{sentence}\n")
    sys.stderr.flush()


def _print_tables(jobs: Iterator[Job], *, dead: bool) -> int:
    from itertools import islice  # noqa: PLC0415 - as above

    from queuectl_client.render import people, views  # noqa: PLC0415 - one of two ways

    now = views.now()
    widths: dict[int, int] = {}
    count = 0
    while page := list(islice(jobs, PAGE)):
        rows = [views.dead_row(job, now) if dead else views.list_row(job, now) for job in page]
        columns = views.DEAD_COLUMNS if dead else views.LIST_COLUMNS
        people.draw([people.Table(columns, rows, heading=count == 0, widths=widths)])
        count += len(page)
    return count


def print_status(status: StatusResult, print_json: PrintJson | None, *, again: bool = False) -> None:
    """Print what the queue holds and who works on it; a blank line before it if it is not the first time."""
    if print_json is not None:
        print_json(status)
    else:
        from queuectl_client.render import people, views  # noqa: PLC0415 - one of two ways

        people.draw([*([people.Cell("")] if again else []), *views.status_parts(status, views.now())])
    sys.stdout.flush()
