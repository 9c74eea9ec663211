"""Jobs by their ids, and what is told of them."""

from __future__ import annotations

from collections.abc import Iterable

from queuectl_protocol.errors import ProtocolError
from queuectl_protocol.jobs import ENDED, Attempt, Job
from queuectl_protocol.messages import JobSummary
from queuectld.store.base import JobRecord, Reader


def find(store: Reader, ref: str) -> JobRecord:
    """The job whose id is `ref`, or the only one whose id begins with it.

    Raises:
        ProtocolError: `not_found`, or `conflict` where several ids begin with it.
    """
    found = store.resolve(ref)
    if not found:
        raise ProtocolError("not_found", f"there is no job {ref}", "`queuectl list --state all` shows all jobs")
    if len(found) > 1:
        examples = ", ".join(job_id for _, job_id in found)
        raise ProtocolError("conflict", f"several jobs begin with {ref}: {examples} ...", "give more of the id")
    record = store.get(found[0][0])
    if record is None:
        raise _removed_just_now(ref)
    return record


def find_all(store: Reader, refs: Iterable[str]) -> list[JobRecord]:
    """Each job once, in the order in which they are first named."""
    return list({record.number: record for record in (find(store, ref) for ref in refs)}.values())


def those_there(store: Reader, ids: Iterable[str]) -> list[JobRecord]:
    """Of these ids, not prefixes, the jobs that are there; each once."""
    found = [(number, job_id, ref) for ref in ids for number, job_id in store.resolve(ref)]
    numbers = dict.fromkeys(number for number, job_id, ref in found if job_id == ref)
    return [record for number in numbers if (record := store.get(number)) is not None]


def whole(store: Reader, ref: str, *, env: bool, attempts_before: int | None) -> Job:
    """The job as the wire tells it.

    Raises:
        ProtocolError: as `find`.
    """
    job = store.job(find(store, ref).number, env=env, attempts_before=attempts_before)
    if job is None:
        raise _removed_just_now(ref)
    return job


def attempt(
    store: Reader, number: int, ref: str, wanted: int | None, *, may_come: bool
) -> tuple[JobRecord, Attempt | None]:
    """A job and one of its attempts, the newest where `wanted` is None; None where there is none yet.

    The job is read first. So where this shows that the attempt has ended, all of its output is in its log.

    Raises:
        ProtocolError: `not_found` for the job, which a person called `ref`; for the attempt, unless it `may_come`.
    """
    job = store.get(number)
    if job is None:
        raise ProtocolError("not_found", f"job {ref} was removed")
    newest = store.attempts(number, 1, None if wanted is None else wanted + 1)
    if newest and wanted in (None, newest[0].number):
        return job, newest[0]
    if wanted is not None and not may_come:
        raise ProtocolError("not_found", f"job {job.id} has no attempt {wanted}", "`queuectl show` lists them")
    return job, None


def summary(record: JobRecord) -> JobSummary:
    return JobSummary(id=record.id, state=record.state, exit_code=record.exit_code, error=record.error)


def summary_of_end(record: JobRecord) -> JobSummary | None:
    """None where the job has not ended."""
    return summary(record) if record.state in ENDED else None


def _removed_just_now(ref: str) -> ProtocolError:
    return ProtocolError("not_found", f"there is no job {ref}", "it was removed just now")
