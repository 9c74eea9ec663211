"""What goes over an exec: everything named, and nothing else."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from queuectld.host import handover
from queuectld.host.handover import Handover, Passed


@pytest.fixture
def descriptors(tmp_path: Path) -> Iterator[list[int]]:
    found = [os.open(tmp_path, os.O_RDONLY | os.O_CLOEXEC) for _ in range(5)]
    yield found
    for descriptor in found:
        os.close(descriptor)


def given(descriptors: list[int], waiting: bytes = b"") -> Handover:
    lock, listener, first, second, _ = descriptors
    return Handover(
        lock=lock, listener=listener, generation=3, started_at=1_700_000_000.25, descriptors=1024, umask=0o022,
        socket_identity=(7, 8), connections=[Passed(first, waiting), Passed(second, b"", too_long=True)], unclean=True,
    )  # fmt: skip


@pytest.mark.parametrize("waiting", [b"", b'{"id": 1}\n\xff\0half', b"x" * 3_000_000])
def test_what_is_passed_on_is_taken_over(descriptors: list[int], waiting: bytes) -> None:
    environment = {"PATH": "/bin"}
    passed = given(descriptors, waiting)
    handover.pass_on(passed, environment)
    inheritable = [os.get_inheritable(descriptor) for descriptor in descriptors]
    assert inheritable == [True, True, True, True, False], "what is not named does not survive the exec"
    memory = int(environment[handover.VARIABLE])
    assert os.get_inheritable(memory)
    assert handover.take_over(environment) == passed
    assert environment == {"PATH": "/bin"}, "jobs and workers must not see it"
    assert not any(os.get_inheritable(descriptor) for descriptor in descriptors), "nor inherit what came over"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(memory)


@pytest.mark.parametrize(
    "environment", [{}, {handover.VARIABLE: ""}, {handover.VARIABLE: "-1"}, {handover.VARIABLE: "x"}]
)
def test_a_process_that_was_started_in_the_usual_way_takes_nothing_over(environment: dict[str, str]) -> None:
    assert handover.take_over(environment) is None
    assert handover.VARIABLE not in environment


def test_a_connection_whose_peer_has_left_is_taken_over_all_the_same(descriptors: list[int]) -> None:
    ours, peer = socket.socketpair()
    with ours:
        peer.close()
        environment: dict[str, str] = {}
        passed = Handover(
            lock=descriptors[0], listener=descriptors[1], generation=1, started_at=0.0, descriptors=256, umask=0,
            socket_identity=None, connections=[Passed(ours.fileno(), b"")],
        )  # fmt: skip
        handover.pass_on(passed, environment)
        assert handover.take_over(environment) == passed


def test_a_connection_that_is_gone_does_not_stop_the_successor(descriptors: list[int]) -> None:
    environment: dict[str, str] = {}
    passed = given(descriptors)
    handover.pass_on(passed, environment)
    gone = descriptors[2]
    os.close(gone)
    try:
        assert handover.take_over(environment) == passed
    finally:
        assert os.open("/", os.O_RDONLY) == gone


def test_an_older_daemon_passes_less(descriptors: list[int]) -> None:
    """Version 0.1.0, word for word."""
    lock, listener, first, *_ = descriptors
    memory = os.memfd_create("test")
    os.write(memory, (
        f'{{"lock":{lock},"listener":{listener},"generation":1,"started_at":1.5,"descriptors":1024,"umask":18,'
        f'"socket_identity":[7,8],"connections":[[{first},"YQ=="]],"unclean":false}}'
    ).encode())  # fmt: skip
    taken = handover.take_over({handover.VARIABLE: str(memory)})
    assert taken is not None
    assert (taken.connections, taken.home, taken.address) == ([Passed(first, b"a")], "", "")
