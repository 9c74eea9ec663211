"""The file of the socket that a daemon listens on."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest

from queuectld.host import socket_file
from queuectld.host.start_error import StartError


def test_without_a_descriptor_there_is_a_refusal_to_listen(directory: Path) -> None:
    """The daemon tries again then; any other error would end its watch over the socket's file for good."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
    try:
        with pytest.raises(StartError, match=os.strerror(errno.EMFILE)):
            socket_file.listen(directory / "sock", None)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
