"""Reading logs from disk: pieces, tails, holes; removing them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuectld.attempt_files import log_reading
from queuectld.attempt_files.log_files import log_path
from queuectld.store.base import Deleted
from queuectld.worker.limited_log import LimitedLog

BLOCK = 4096


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def cut_log(path: Path, content: bytes, kept: int) -> int:
    """A log of which only about the newest `kept` bytes are left; where they begin."""
    path.write_bytes(content)
    LimitedLog(os.open(path, os.O_WRONLY), kept, now=0.0).close()
    return (len(content) - kept) // BLOCK * BLOCK


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "1.1.log"


# --- pieces ---------------------------------------------------------------------------------------------------------


def test_a_log_that_is_not_there_has_nothing(log: Path) -> None:
    assert log_reading.read_piece(log, 5) == log_reading.Piece(5, b"", at_end=True, dropped=False)
    assert log_reading.offset_of_tail(log, 3) == 0


def test_an_empty_log_has_nothing(log: Path) -> None:
    log.touch()
    assert log_reading.read_piece(log, 0) == log_reading.Piece(0, b"", at_end=True, dropped=False)
    assert log_reading.offset_of_tail(log, 3) == 0


@given(size=st.integers(0, 40), offset=st.integers(0, 50), piece=st.integers(1, 50))
def test_a_piece_is_that_part_of_the_file(
    tmp_path_factory: pytest.TempPathFactory, size: int, offset: int, piece: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    content = bytes(range(size))
    path.write_bytes(content)
    assert log_reading.read_piece(path, offset, piece) == log_reading.Piece(
        offset, content[offset : offset + piece], at_end=offset + piece >= size, dropped=False
    )


def test_what_was_dropped_is_said_where_it_is_missed_and_not_again(log: Path) -> None:
    content = os.urandom(10 * BLOCK)
    begin = cut_log(log, content, 2 * BLOCK)
    first = log_reading.read_piece(log, 0, BLOCK)
    assert first == log_reading.Piece(begin, content[begin : begin + BLOCK], at_end=False, dropped=True)
    second = log_reading.read_piece(log, begin + BLOCK, 2 * BLOCK)
    assert second == log_reading.Piece(begin + BLOCK, content[begin + BLOCK :], at_end=True, dropped=False)


def test_an_offset_within_the_hole_is_moved_behind_it(log: Path) -> None:
    content = os.urandom(10 * BLOCK)
    begin = cut_log(log, content, BLOCK)
    piece = log_reading.read_piece(log, begin - 1, 10)
    assert (piece.offset, piece.data, piece.dropped) == (begin, content[begin : begin + 10], True)


def test_a_link_in_place_of_a_log_is_not_followed(log: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret\n")
    log.symlink_to(secret)
    assert log_reading.read_piece(log, 0).data == b""
    assert log_reading.offset_of_tail(log, 1) == 0


def test_a_pipe_in_place_of_a_log_is_not_waited_for(log: Path) -> None:
    os.mkfifo(log)
    assert log_reading.read_piece(log, 0).data == b""
    assert log_reading.offset_of_tail(log, 1) == 0


# --- tails ----------------------------------------------------------------------------------------------------------


@given(content=st.text("ab\n", max_size=60), lines=st.integers(0, 10))
def test_a_tail_is_that_many_lines(tmp_path_factory: pytest.TempPathFactory, content: str, lines: int) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    path.write_text(content)
    wanted = "".join(content.splitlines(keepends=True)[-lines:]) if lines else ""
    assert content[log_reading.offset_of_tail(path, lines) :] == wanted


@pytest.mark.parametrize("lines", [1, 100, 9_999, 10_000, 10_001])
@pytest.mark.parametrize("end", ["", "\n"])
def test_a_tail_over_many_blocks(log: Path, lines: int, end: str) -> None:
    written = [f"line {number} {'x' * (number % 50)}" for number in range(10_000)]
    content = "\n".join(written) + end
    log.write_text(content)
    assert content[log_reading.offset_of_tail(log, lines) :].splitlines() == written[-lines:]


def test_a_tail_of_one_line_that_is_longer_than_all_blocks(log: Path) -> None:
    log.write_bytes(b"x\n" + b"y" * 200_000 + b"\n")
    assert log_reading.offset_of_tail(log, 1) == 2


def test_a_tail_ends_at_the_hole(log: Path) -> None:
    content = b"".join(b"%07d\n" % number for number in range(10_000))
    begin = cut_log(log, content, 10 * BLOCK)
    assert log_reading.offset_of_tail(log, 10_000) == begin
    assert log_reading.offset_of_tail(log, 2) == len(content) - 16
    assert log_reading.offset_of_tail(log, 0) == len(content)


# --- removal --------------------------------------------------------------------------------------------------------


def make(state_dir: Path, job: int, attempt: int) -> Path:
    path = log_path(state_dir, job, attempt)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    return path


def test_logs_go_with_their_job_and_empty_directories_with_them(tmp_path: Path) -> None:
    gone = [make(tmp_path, 5, attempt) for attempt in (1, 2, 3)]
    stays = make(tmp_path, 1005, 1)
    log_reading.remove_logs(tmp_path, [Deleted(5, 3), Deleted(6, 2), Deleted(7, 0)])
    assert not [path for path in gone if path.exists()]
    assert not gone[0].parent.exists()
    assert stays.exists()


def test_what_can_not_be_removed_does_not_keep_the_others_there(tmp_path: Path) -> None:
    """A stranger among the logs must not end retention for ever."""
    strange = log_path(tmp_path, 5, 1)
    (strange / "below").mkdir(parents=True)
    others = [make(tmp_path, 5, 2), make(tmp_path, 6, 1)]
    log_reading.remove_logs(tmp_path, [Deleted(5, 2), Deleted(6, 1)])
    assert not [path for path in others if path.exists()]
    assert strange.exists()


def test_a_link_is_removed_and_not_what_it_points_to(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("x")
    link = make(tmp_path, 5, 1)
    link.unlink()
    link.symlink_to(target)
    log_reading.remove_logs(tmp_path, [Deleted(5, 1)])
    assert not link.is_symlink()
    assert target.exists()
