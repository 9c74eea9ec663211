"""What `run` exits with, and how it holds back a signal."""

from __future__ import annotations

import os
import signal

import pytest

from queuectl_client.commands import run


@pytest.mark.parametrize(
    ("state", "exit_code", "status"),
    [
        ("completed", 0, 0),
        ("dead", 3, 3),
        ("dead", 143, 143),
        ("dead", None, 1),  # the worker was lost: nobody knows
        ("cancelled", 143, 143),
        ("cancelled", None, 1),  # before it began
        ("cancelled", 0, 1),  # never success
    ],
)
def test_the_exit_status_is_the_jobs_own(state: str, exit_code: int | None, status: int) -> None:
    assert run.exit_status_of(state, exit_code) == status


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_what_is_going_on(number: signal.Signals) -> None:
    signals = run.Signals()
    before = signal.getsignal(number)
    with signals.installed():
        with pytest.raises(run.Stopped):
            os.kill(os.getpid(), number)
        assert signals.received == number
    assert signal.getsignal(number) is before


def test_a_held_signal_waits_until_the_end_and_the_second_does_not() -> None:
    signals = run.Signals()
    steps: list[str] = []

    def send(*numbers: signal.Signals) -> None:
        with signals.held():
            for number in numbers:
                os.kill(os.getpid(), number)
            steps.append("not left half done")

    with signals.installed():
        with pytest.raises(run.Stopped):
            send(signal.SIGINT)
        assert steps == ["not left half done"]
        with pytest.raises(run.Stopped):
            send(signal.SIGTERM, signal.SIGTERM)
        assert steps == ["not left half done"]
        assert signals.received == signal.SIGINT
