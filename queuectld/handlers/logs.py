"""Output of attempts."""

from __future__ import annotations

import asyncio
import base64
import functools
from pathlib import Path

from queuectl_protocol.jobs import ENDED
from queuectl_protocol.messages import JobLogs, JobLogsParams
from queuectld.attempt_files import log_reading
from queuectld.attempt_files.log_files import log_path
from queuectld.handlers.context import Context
from queuectld.pool.handles import Peer
from queuectld.queue import find
from queuectld.queue.watchers import AnyChange

GATHER = 0.02
"""Seconds between noticing new output and answering with it, so that a chatty job does not cost an answer a line."""


async def read(context: Context, _peer: Peer, params: JobLogsParams) -> JobLogs:
    """One piece of the output; with `follow`, waits until there is some."""
    number = (await context.readers.run(lambda reader: find.find(reader, params.id))).number
    change = AnyChange()
    changed = change.event
    context.watchers.subscribe([number], change)
    followed: Path | None = None
    offset: int | None = None
    wanted = params.attempt
    try:
        while True:
            changed.clear()
            # Before the log is read: an attempt that is seen as ended here has written all its output.
            look = functools.partial(find.attempt, number=number, ref=params.id, wanted=wanted, may_come=params.follow)
            job, attempt = await context.readers.run(look)
            if attempt is None:
                if not params.follow or job.state in ENDED:
                    return JobLogs(attempt=None, offset=0, next=0, end=True, text="")
                context.refuse_when_stopped()
                await changed.wait()
                continue
            # The newest at the first look, not at each: a retry has a log of its own.
            wanted = attempt.number
            path = log_path(context.about.state_dir, number, attempt.number)
            if followed is None and params.follow and attempt.outcome is None:
                context.log_watches.follow(path, changed)
                followed = path
            if offset is None:
                tail = params.tail
                offset = params.offset
                if tail is not None:
                    offset = await context.log_files.run(log_reading.offset_of_tail, path, tail)
            piece = await context.log_files.run(log_reading.read_piece, path, offset)
            end = attempt.outcome is not None and piece.at_end
            if piece.data or end or not params.follow:
                return _answer(attempt.number, piece, end=end, raw=params.base64)
            context.refuse_when_stopped()
            await changed.wait()
            await asyncio.sleep(GATHER)
    finally:
        context.watchers.unsubscribe([number], change)
        if followed is not None:
            context.log_watches.unfollow(followed, changed)


def _answer(attempt: int, piece: log_reading.Piece, *, end: bool, raw: bool) -> JobLogs:
    data = piece.data
    text = encoded = None
    if raw:
        encoded = base64.b64encode(data).decode("ascii")
    else:
        if not end:
            data = _whole_characters(data)
        text = data.decode("utf-8", "replace")
    return JobLogs(
        attempt=attempt,
        offset=piece.offset,
        next=piece.offset + len(data),
        end=end,
        text=text,
        base64=encoded,
        dropped=piece.dropped,
    )


def _whole_characters(data: bytes) -> bytes:
    """Without a UTF-8 character that is cut off at the end: its rest comes with the next piece."""
    for back in range(1, min(4, len(data)) + 1):
        lead = data[-back]
        if lead & 0xC0 != 0x80:
            length = (
                1 if lead < 0x80 else 2 if lead >> 5 == 6 else 3 if lead >> 4 == 14 else 4 if lead >> 3 == 30 else 1
            )
            return data[:-back] if length > back and len(data) > back else data
    return data
