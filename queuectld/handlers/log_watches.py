"""Who follows a log is told when it was written to: one watch a log, however many follow it."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import struct
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from queuectld.host.threads import Threads

_IN_MODIFY = 0x2
_IN_Q_OVERFLOW = 0x4000
_IN_IGNORED = 0x8000
_IN_DONT_FOLLOW = 0x0200_0000
_EVENT = struct.Struct("iIII")
_libc = ctypes.CDLL(None, use_errno=True)

FIRST_LOOK = 0.02
LAST_LOOK = 1.0
"""Seconds between two looks at a log that can't be watched; doubled from the first to the last while it is silent."""


@dataclass(slots=True, eq=False)
class _Log:
    path: Path
    events: set[asyncio.Event] = field(default_factory=set)
    watch: int | None = None
    """The number of its inotify(7) watch; None: it is looked at again and again."""
    looking: asyncio.Task[None] | None = None

    def tell(self) -> None:
        for event in self.events:
            event.set()


class LogWatches:
    """All logs that are followed.

    A log is watched by inotify(7), with one instance for all: a user may have 128 of them. A log that is not there yet
    is looked at until it is, and so is every log where the user has no instance left.

    Args:
        threads: in which files are looked at.
        inotify: False: as if there were none.
    """

    def __init__(self, threads: Threads, *, inotify: bool = True) -> None:
        self._threads = threads
        self._inotify = inotify
        self._descriptor = -1
        self._logs: dict[Path, _Log] = {}
        self._watched: defaultdict[int, set[_Log]] = defaultdict(set)

    def follow(self, path: Path, event: asyncio.Event) -> None:
        """Set `event` at each write from now on, until `unfollow`."""
        log = self._logs.get(path)
        if log is not None:
            log.events.add(event)
            return
        log = self._logs[path] = _Log(path, {event})
        if not self._watch(log):
            log.looking = asyncio.ensure_future(self._look(log))

    def unfollow(self, path: Path, event: asyncio.Event) -> None:
        """One that does not follow it is fine."""
        log = self._logs.get(path)
        if log is None:
            return
        log.events.discard(event)
        if log.events:
            return
        del self._logs[path]
        if log.looking is not None:
            log.looking.cancel()
        if log.watch is not None:
            # An empty log becomes that of the next attempt by a rename, and may be followed by that name too.
            same = self._watched[log.watch]
            same.discard(log)
            if not same:
                del self._watched[log.watch]
                _libc.inotify_rm_watch(self._descriptor, log.watch)

    def close(self) -> None:
        for log in self._logs.values():
            if log.looking is not None:
                log.looking.cancel()
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _watch(self, log: _Log) -> bool:
        """Whether it is watched from now on."""
        if self._descriptor < 0 and self._inotify:
            self._descriptor = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
            if self._descriptor >= 0:
                asyncio.get_running_loop().add_reader(self._descriptor, self._on_readable)
        if self._descriptor < 0:
            return False
        watch = _libc.inotify_add_watch(self._descriptor, os.fsencode(log.path), _IN_MODIFY | _IN_DONT_FOLLOW)
        if watch < 0:
            return False
        log.watch = watch
        self._watched[watch].add(log)
        return True

    def _on_readable(self) -> None:
        data = b""
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._descriptor, 65536)
        position = 0
        while position < len(data):
            watch, mask, _cookie, length = _EVENT.unpack_from(data, position)
            position += _EVENT.size + length
            if mask & _IN_Q_OVERFLOW:
                for log in self._logs.values():
                    log.tell()
            elif mask & _IN_IGNORED:  # the file is gone
                for log in self._watched.pop(watch, ()):
                    log.watch = None
                    log.looking = asyncio.ensure_future(self._look(log))
            else:
                for log in self._watched.get(watch, ()):
                    log.tell()

    async def _look(self, log: _Log) -> None:
        """Tell of what changes, until it can be watched. What was written before the first look is told of by it."""
        pause = FIRST_LOOK
        before: object = ...
        while True:
            await asyncio.sleep(pause)
            if self._watch(log):
                log.looking = None
                log.tell()
                return
            now = await self._threads.run(_signature, log.path)
            if now == before:
                pause = min(2 * pause, LAST_LOOK)
            else:
                before, pause = now, FIRST_LOOK
                log.tell()


def _signature(path: Path) -> tuple[int, int, int] | None:
    """What differs after a write; None where there is no such file."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
