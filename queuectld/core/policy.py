"""How a job is run and retried: the settings, overridden by its queue, overridden by the job. Only decided here.

`max_retries` and `timeout` are decided when a job is enqueued, and kept with it: a setting that is changed later is for
later jobs. The rest is decided when it is needed.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from queuectld.core.settings import Settings


class Saying(Protocol):
    """What a job or a queue says of its policy; None where it says nothing."""

    @property
    def max_retries(self) -> int | None: ...

    @property
    def timeout(self) -> float | None: ...


class Said(Struct, frozen=True, gc=False):
    """See Saying. For who holds only some of it."""

    max_retries: int | None = None
    timeout: float | None = None


SILENT = Said()


class Policy(Struct, frozen=True, gc=False):
    """Everything filled in. Times are seconds; for ranges and meanings see settings.py."""

    max_retries: int
    timeout: float
    backoff_base: float
    backoff_max: float
    backoff_jitter: float
    log_max_bytes: int


def decide(settings: Settings, *, queue: Saying = SILENT, job: Saying = SILENT) -> Policy:
    """What holds for a job."""
    retries, timeout = job.max_retries, job.timeout
    if retries is None:
        retries = settings.max_retries if queue.max_retries is None else queue.max_retries
    if timeout is None:
        timeout = settings.job_timeout if queue.timeout is None else queue.timeout
    return Policy(
        retries,
        timeout,
        settings.backoff_base,
        settings.backoff_max,
        settings.backoff_jitter,
        settings.log_max_bytes,
    )
