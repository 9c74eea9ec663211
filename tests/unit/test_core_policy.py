"""Settings < queue < job."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from queuectl_protocol.jobs import JobSpec
from queuectld.core.policy import SILENT, Policy, Said, decide
from queuectld.core.settings import Settings

SETTINGS = Settings(max_retries=5, job_timeout=7.0, backoff_base=3.0, backoff_max=9.0, log_max_bytes=70_000)
SAYINGS = st.builds(Said, st.none() | st.integers(0, 10_000), st.none() | st.floats(0, 1e6))


def test_who_says_nothing_has_what_the_settings_say() -> None:
    usual = Policy(5, 7.0, 3.0, 9.0, 0.0, 70_000)
    assert decide(SETTINGS) == usual
    assert decide(SETTINGS, job=JobSpec(command="true")) == usual


def test_zero_is_something_that_is_said() -> None:
    decided = decide(SETTINGS, queue=Said(8, 9.0), job=JobSpec(command="true", max_retries=0, timeout=0))
    assert (decided.max_retries, decided.timeout) == (0, 0)
    decided = decide(SETTINGS, queue=Said(0, 0.0))
    assert (decided.max_retries, decided.timeout) == (0, 0)


@given(queue=SAYINGS, job=SAYINGS)
def test_each_is_decided_by_the_nearest_who_says_something(queue: Said, job: Said) -> None:
    decided = decide(SETTINGS, queue=queue, job=job)
    for name, usual in (("max_retries", 5), ("timeout", 7.0)):
        said = [getattr(one, name) for one in (job, queue) if getattr(one, name) is not None]
        assert getattr(decided, name) == [*said, usual][0]
    unsaid = decide(SETTINGS, queue=SILENT, job=SILENT)
    assert decided.backoff_base == unsaid.backoff_base
