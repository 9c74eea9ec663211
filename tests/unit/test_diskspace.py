"""Room on the disk: what is refused below the floor, and the reserve."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from queuectl_protocol.errors import ProtocolError
from queuectld.host.diskspace import FLOOR_OF_FILES, FLOOR_VARIABLE, RESERVE, DiskSpace, free_of

MORE_THAN_THERE_IS = str(1 << 62)


@pytest.fixture
def full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DiskSpace:
    monkeypatch.setenv(FLOOR_VARIABLE, MORE_THAN_THERE_IS)
    return DiskSpace(tmp_path)


@pytest.fixture
def roomy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DiskSpace:
    monkeypatch.setenv(FLOOR_VARIABLE, "0")
    return DiskSpace(tmp_path)


def test_with_room_nothing_is_refused(roomy: DiskSpace) -> None:
    assert not roomy.is_low()
    roomy.check()


def test_below_the_floor_what_may_wait_is_refused_with_what_to_do(full: DiskSpace, tmp_path: Path) -> None:
    assert full.is_low()
    with pytest.raises(ProtocolError) as caught:
        full.check()
    assert caught.value.kind == "storage_full"
    assert str(tmp_path) in caught.value.message
    assert "free some space" in caught.value.hint


def test_the_reserve_has_its_blocks_and_nobody_else_reads_it(roomy: DiskSpace, tmp_path: Path) -> None:
    roomy.keep_reserve()
    status = (tmp_path / "reserve").stat()
    assert status.st_size == RESERVE
    assert status.st_blocks * 512 >= RESERVE, "a sparse file keeps no room"
    assert status.st_mode & 0o777 == 0o600
    roomy.keep_reserve()


def test_the_reserve_is_given_up_once_and_made_again(roomy: DiskSpace, tmp_path: Path) -> None:
    roomy.keep_reserve()
    for _ in range(2):
        roomy.give_up_reserve()
        assert not (tmp_path / "reserve").exists()
    roomy.keep_reserve()
    assert (tmp_path / "reserve").exists()


def test_a_full_disk_is_not_filled_further_by_a_reserve(full: DiskSpace, tmp_path: Path) -> None:
    full.keep_reserve()
    assert not (tmp_path / "reserve").exists()


def test_a_directory_that_is_gone_is_not_taken_for_a_full_disk(roomy: DiskSpace, tmp_path: Path) -> None:
    gone = DiskSpace(tmp_path / "gone")
    assert not gone.is_low()
    gone.keep_reserve()
    gone.give_up_reserve()


def test_without_inodes_nothing_is_taken_that_needs_files(
    roomy: DiskSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log can't be made then, however many bytes are free."""
    there = list(os.statvfs(tmp_path))
    there[5:8] = [1_000_000, FLOOR_OF_FILES + 10, FLOOR_OF_FILES - 1]  # in all, free, free for this user
    few = os.statvfs_result(there)
    monkeypatch.setattr(os, "statvfs", lambda _path: few)
    assert roomy.is_low()
    with pytest.raises(ProtocolError, match="inodes") as caught:
        roomy.check()
    assert caught.value.kind == "storage_full"


def test_a_file_system_without_a_number_of_inodes_has_enough(tmp_path: Path) -> None:
    there = list(os.statvfs(tmp_path))
    there[5:8] = [0, 0, 0]
    assert free_of(os.statvfs_result(there)).files == math.inf
