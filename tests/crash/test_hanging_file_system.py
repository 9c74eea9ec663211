"""A file system that does not answer (a network's, whose server is gone), and a process that has a file open there."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import PATIENCE, Daemon

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="needs root and /dev/fuse"
)

_REQUEST = struct.Struct("<IIQQ")
_FORGET = 2
_FORCE, _DETACH = 1, 2


def _attributes(inode: int) -> bytes:
    """As FUSE has them: of the directory, which is inode 1, or of the file."""
    mode = 0o40755 if inode == 1 else 0o100644
    return struct.pack("<6Q10I", inode, 0, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


class Hanging:
    """A file system with one file `f`, which can be opened; after `hang` nothing that it is asked is answered."""

    def __init__(self, mount: Path) -> None:
        self.file = mount / "f"
        self._mount = os.fsencode(mount)
        self._hangs = threading.Event()
        self._device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._device},rootmode=40000,user_id=0,group_id=0".encode()
        if ctypes.CDLL(None).mount(b"hanging", self._mount, b"fuse", 0, options) != 0:
            os.close(self._device)
            pytest.skip("FUSE can't be mounted here")
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        # Whatever goes wrong: nobody on this machine is kept waiting for longer.
        self._last = threading.Timer(2 * PATIENCE, self._unmount)
        self._last.start()

    def hang(self) -> None:
        self._hangs.set()

    def close(self) -> None:
        self._last.cancel()
        self._unmount()
        self._thread.join()
        os.close(self._device)

    def _unmount(self) -> None:
        """Whoever waits for an answer gets an error."""
        ctypes.CDLL(None).umount2(self._mount, _FORCE | _DETACH)

    def _serve(self) -> None:
        while True:
            try:
                request = os.read(self._device, 256 * 1024)
            except OSError:  # unmounted
                return
            _length, operation, number, inode = _REQUEST.unpack_from(request)
            if operation == _FORGET or self._hangs.is_set():
                continue
            answer = self._answer(operation, inode)
            error = -errno.ENOSYS if answer is None else 0
            answer = answer or b""
            os.write(self._device, struct.pack("<IiQ", 16 + len(answer), error, number) + answer)

    @staticmethod
    def _answer(operation: int, inode: int) -> bytes | None:
        match operation:
            case 26:  # INIT: version 7.31
                return struct.pack("<4I2H2I36x", 7, 31, 65536, 0, 12, 10, 65536, 1)
            case 1:  # LOOKUP
                return struct.pack("<4Q2I", 2, 0, 0, 0, 0, 0) + _attributes(2)
            case 3:  # GETATTR
                return struct.pack("<QII", 0, 0, 0) + _attributes(inode)
            case 14:  # OPEN
                return struct.pack("<QII", 1, 0, 0)
        return None


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[Hanging]:
    """One that hangs, and on which somebody who has nothing to do with us has a file open."""
    found = Hanging(tmp_path)
    holder = None
    try:
        with found.file.open() as file:
            holder = subprocess.Popen(["sleep", "1000"], stdin=file)
        found.hang()
        yield found
    finally:
        found.close()
        if holder is not None:
            holder.kill()
            holder.wait()


@pytest.mark.usefixtures("hanging")
def test_a_lost_worker_is_settled_and_the_daemon_stops(single: Daemon) -> None:
    job_id = single.enqueue("test $QUEUECTL_ATTEMPT = 2 || sleep 1000", max_retries=2)
    os.kill(single.worker_of(job_id), signal.SIGKILL)
    history = single.wait_state(job_id, "completed")["history"]
    assert [attempt["outcome"] for attempt in history] == ["lost", "completed"]
    assert single.stop() == 0
