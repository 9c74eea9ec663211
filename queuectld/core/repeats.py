"""A request with the id of a job that is there: whether it asks for the same job, and if not, in what it differs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from msgspec import UNSET

from queuectl_protocol.jobs import Job, JobSpec, content, content_of_0_1
from queuectld.core.policy import Policy

_AS_ASKED = ("command", "argv", "queue", "priority", "label", "cwd", "exact_env")
"""Fields that a job holds just as they were asked for."""


def digest(spec: JobSpec) -> bytes:
    """What is stored with a job, so that the same request is known again.

    Defaults are not filled in, so that a setting that was changed does not make the same request a different one.
    """
    return _hash(content(spec))


def differing(spec: JobSpec, there: Job, stored: bytes, usual: Policy) -> list[str]:
    """The fields in which a request differs from the job that has its id; none: it is the same job.

    Args:
        spec: the request.
        there: the job that has its id, its environment included.
        stored: that job's digest.
        usual: what holds for a job that says nothing of its policy.
    """
    if digest(spec) == stored:
        return []
    held = {name: None if (value := getattr(there, name)) is UNSET else value for name in _AS_ASKED}
    variables = {} if there.env is UNSET else there.env
    names = [name for name, value in held.items() if getattr(spec, name) != value]
    # A job holds its retries and its timeout with the defaults filled in, and its delay only until it is retried. Which
    # request gives the stored digest tells what was asked for.
    asked = next((one for one in _requests(spec, there, held, variables) if stored in _digests(one)), None)
    if _differs(spec.max_retries, asked.max_retries if asked else None, usual.max_retries, there.max_retries):
        names.append("max_retries")
    if _differs(spec.timeout, asked.timeout if asked else None, usual.timeout, there.timeout):
        names.append("timeout")
    if spec.exact_env == there.exact_env and _compared(spec, spec.env or {}) != _compared(spec, variables):
        names.append("env")
    if (asked is None and not there.exact_env) or (asked is not None and spec.delay != asked.delay):
        names.append("delay")
    if not names and asked is None and spec.env != variables:
        names.append("delay` or `env")  # the job does not hold which of its variables are compared
    return names


def _differs(wanted: float | None, asked: float | None, default: float, held: float) -> bool:
    """Whether a request wants something else than the job has.

    Args:
        wanted: None is the default.
        asked: for the job; None too where that is not known.
        default: of now.
        held: by the job, with the default of its time.
    """
    return (wanted, asked) != (None, None) and (default if wanted is None else wanted) != held


def _compared(spec: JobSpec, variables: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in variables.items() if not spec.exact_env or name in (spec.env_given or ())}


def _requests(spec: JobSpec, there: Job, held: Mapping[str, Any], variables: Mapping[str, str]) -> Iterator[JobSpec]:
    """Requests that could have made the job."""
    wanted = spec.env_given if spec.exact_env else spec.env
    given = [name for name in wanted or () if name in variables]
    delays = {spec.delay: None, 0.0: None, round((there.run_at - there.created_at).total_seconds(), 3): None}
    environments: Sequence[dict[str, str] | None] = (dict(variables),) if variables else (None, {})
    for delay, retries, timeout, names, env in product(
        delays, (None, there.max_retries), (None, there.timeout), (given, None), environments
    ):
        try:
            yield JobSpec(
                **held, delay=delay, max_retries=retries, timeout=timeout, env=env, env_given=names if env else None
            )
        except ValueError:
            return  # what the database has of the job can't have been asked for


def _digests(spec: JobSpec) -> tuple[bytes, bytes]:
    return _hash(content(spec)), _hash(content_of_0_1(spec))


def _hash(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=16).digest()
