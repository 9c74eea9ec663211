"""Who follows a log is told of each write, whatever happens to the file, and costs nothing while it is silent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from queuectld.handlers.log_watches import LogWatches
from queuectld.host.threads import Threads
from tests.harness import PATIENCE


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "1.1.log"


def play(scene: Callable[[LogWatches], Awaitable[None]], *, inotify: bool = True) -> None:
    """A scene; no descriptor is left after it."""

    async def run() -> None:
        threads = Threads(1, "log")
        watches = LogWatches(threads, inotify=inotify)
        await scene(watches)
        watches.close()
        threads.close()

    asyncio.run(run())  # threads and the loop need some for themselves
    before = len(descriptors())
    asyncio.run(run())
    assert len(descriptors()) == before


def descriptors() -> list[str]:
    """What the descriptors of this process are."""
    links = list(Path("/proc/self/fd").iterdir())
    return [str(link.readlink()) for link in links if link.is_symlink()]


async def told(event: asyncio.Event) -> None:
    async with asyncio.timeout(PATIENCE):
        await event.wait()
    event.clear()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def rename(path: Path, other: Path) -> None:
    path.rename(other)


def write(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


@pytest.mark.parametrize("inotify", [True, False])
def test_a_write_is_told_to_all_who_follow(log: Path, inotify: bool) -> None:
    async def scene(watches: LogWatches) -> None:
        empty(log)
        events = [asyncio.Event() for _ in range(3)]
        for event in events:
            watches.follow(log, event)
        for _ in range(3):
            write(log)
            for event in events:
                await told(event)
        for event in events:
            watches.unfollow(log, event)
            watches.unfollow(log, event)

    play(scene, inotify=inotify)


@pytest.mark.parametrize("inotify", [True, False])
def test_a_log_that_is_made_later_is_told_of(log: Path, inotify: bool) -> None:
    async def scene(watches: LogWatches) -> None:
        remove(log)
        event = asyncio.Event()
        watches.follow(log, event)
        write(log)
        await told(event)
        write(log)
        await told(event)
        watches.unfollow(log, event)

    play(scene, inotify=inotify)


@pytest.mark.parametrize("inotify", [True, False])
def test_a_log_that_is_replaced_is_followed_on(log: Path, inotify: bool) -> None:
    async def scene(watches: LogWatches) -> None:
        write(log)
        event = asyncio.Event()
        watches.follow(log, event)
        remove(log)
        write(log)
        await told(event)
        write(log)
        await told(event)
        watches.unfollow(log, event)

    play(scene, inotify=inotify)


def test_the_log_of_the_next_attempt_may_be_the_same_file(log: Path) -> None:
    async def scene(watches: LogWatches) -> None:
        empty(log)
        following = log.with_name("1.2.log")
        first, second = asyncio.Event(), asyncio.Event()
        watches.follow(log, first)
        rename(log, following)
        watches.follow(following, second)
        watches.unfollow(log, first)
        write(following)
        await told(second)
        assert not first.is_set()
        watches.unfollow(following, second)

    play(scene)


def test_all_logs_together_need_one_instance(tmp_path: Path) -> None:
    async def scene(watches: LogWatches) -> None:
        event = asyncio.Event()
        for number in range(300):
            log = tmp_path / f"{number}.1.log"
            empty(log)
            watches.follow(log, event)
        assert descriptors().count("anon_inode:inotify") == 1
        for number in range(300):
            watches.unfollow(tmp_path / f"{number}.1.log", event)

    play(scene)
