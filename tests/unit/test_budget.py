"""Room for requests is given out in turn, and comes back."""

from __future__ import annotations

import asyncio

from queuectld.wire.budget import LARGE, Room, weight


class Peer:
    """Asks for room again and again, until it has had it as often as it wants."""

    def __init__(self, name: str, room: Room, size: int, log: list[str]) -> None:
        self.name, self.room, self.size, self.log = name, room, size, log

    def room_again(self) -> None:
        if self.room.take(self.size, self):
            self.log.append(self.name)


def play(*sizes: int, gone: int | None = None) -> tuple[list[str], int]:
    """Peers that ask for so much of 10 in turn, and give it back one by one; who got it when, and what is left."""

    async def run() -> tuple[list[str], int]:
        log: list[str] = []
        room = Room(10)
        peers = [Peer(str(number), room, size, log) for number, size in enumerate(sizes)]
        for peer in peers:
            peer.room_again()
        if gone is not None:
            room.forget(peers[gone])
        for turn in range(len(peers)):
            log.append("|")
            if turn < len([name for name in log if name != "|"]):
                done = [name for name in log if name != "|"][turn]
                room.give_back(peers[int(done)].size)
                await asyncio.sleep(0)
        return log, room.used

    return asyncio.run(run())


def test_all_get_in_where_there_is_room() -> None:
    assert play(3, 3, 3) == (["0", "1", "2", "|", "|", "|"], 0)


def test_who_has_to_wait_gets_in_when_enough_came_back() -> None:
    assert play(6, 6, 6) == (["0", "|", "1", "|", "2", "|"], 0)


def test_nobody_overtakes_one_who_waits() -> None:
    """Else a large request would wait for ever, while small ones come and go."""
    assert play(6, 5, 1, 1) == (["0", "|", "1", "2", "3", "|", "|", "|"], 0)


def test_what_is_larger_than_all_there_is_gets_in_alone() -> None:
    assert play(1, 50, 1) == (["0", "|", "1", "|", "2", "|"], 0)


def test_who_has_gone_is_not_waited_for() -> None:
    log, _used = play(6, 50, 6, gone=1)
    assert [name for name in log if name != "|"] == ["0", "2"]


def test_a_request_weighs_what_becomes_of_it() -> None:
    assert weight(b'{"jsonrpc":"2.0","id":1,"method":"server.info"}') < LARGE
    assert weight(b'{"jobs":[' + b'{"command":"a"},' * 10_000 + b"]}") > 10_000 * 500
