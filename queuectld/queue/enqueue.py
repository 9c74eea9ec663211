"""Asking for work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from queuectl_protocol.errors import ProtocolError
from queuectl_protocol.ids import Ids
from queuectl_protocol.jobs import JobSpec
from queuectld import failpoints
from queuectld.core import lifecycle, policy, repeats
from queuectld.core.lifecycle import Event
from queuectld.core.settings import Settings
from queuectld.queue.changes import After, Change
from queuectld.store.base import NewJob, Store
from queuectld.store.committer import Changed, Joint

_ids = Ids()


class Enqueue(Joint[Changed[list[str]]]):
    """Inserts the jobs of a request; the result is their ids.

    Many clients that enqueue a job each cost little more than one that enqueues them all.
    """

    def __init__(self, specs: Sequence[JobSpec], settings: Settings, now: float) -> None:
        self.specs = specs
        self.settings = settings
        self.now = now

    @classmethod
    def run_all(cls, store: Store, operations: Sequence[Enqueue]) -> list[Changed[list[str]]]:
        # All at the time of the last of them: a commit is one moment.
        made = enqueue_all(store, [(one.specs, one.settings) for one in operations], operations[-1].now)
        failpoints.hit("enqueue.inserted")
        return made


def enqueue_all(
    store: Store, requests: Iterable[tuple[Sequence[JobSpec], Settings]], now: float
) -> list[Changed[list[str]]]:
    """Insert the jobs of all requests, each with the settings that held for it, or none; the ids, request by request.

    Raises:
        ProtocolError: `conflict` where an id is taken by another job; it names the fields that differ.
    """
    asked = [*requests]
    made = [[_new_job(spec, settings, now) for spec in specs] for specs, settings in asked]
    inserted = store.insert([job for jobs in made for job in jobs], now)
    taken = inserted.contradicted
    if taken:
        for (specs, settings), jobs in zip(asked, made, strict=True):
            for spec, job in zip(specs, jobs, strict=True):
                if job.id in taken:
                    _check_same(store, spec, job.id, taken[job.id], settings)
    numbers = iter(inserted.numbers)
    return [Changed([job.id for job in jobs], _changes(jobs, numbers)) for jobs in made]


def _changes(jobs: Iterable[NewJob], numbers: Iterator[int | None]) -> list[Change]:
    """Of as many of the numbers as there are jobs."""
    after: After | None = None  # mostly one for all
    changes = []
    for job, number in zip(jobs, numbers, strict=False):
        if number is not None:
            if after is None or after.run_at != job.run_at:
                after = After(lifecycle.NEW, job.run_at)
            changes.append(Change(number, None, after, Event.ENQUEUE))
    return changes


def _check_same(store: Store, spec: JobSpec, job_id: str, digest: bytes, settings: Settings) -> None:
    """
    Raises:
        ProtocolError: `conflict` where the job that has the id is another one.
    """
    there = store.job(store.resolve(job_id)[0][0], env=True)
    assert there is not None, "it is there in this transaction"  # noqa: S101
    names = repeats.differing(spec, there, digest, policy.decide(settings))
    if names:
        fields = f"{', '.join(f'`{name}`' for name in names[:-1])} and `{names[-1]}`" if names[1:] else f"`{names[0]}`"
        raise ProtocolError(
            "conflict", f"job {job_id} is there already, and differs in {fields}", "nothing was enqueued"
        )


def _new_job(spec: JobSpec, settings: Settings, now: float) -> NewJob:
    decided = policy.decide(settings, job=spec)
    return NewJob(
        id=spec.id or _ids.make(),
        digest=repeats.digest(spec),
        queue=spec.queue,
        priority=spec.priority,
        run_at=now + spec.delay,
        max_retries=decided.max_retries,
        timeout=decided.timeout,
        label=spec.label,
        command=spec.command,
        argv=spec.argv,
        cwd=spec.cwd,
        env=spec.env,
        exact_env=spec.exact_env,
    )
