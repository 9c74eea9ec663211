"""Exit records: whole or not there, whatever happened while they were written."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from queuectl_protocol.jobs import Outcome
from queuectl_protocol.messages import AttemptResult
from queuectld.attempt_files import exit_records
from tests.harness import ROOT

RESULT = AttemptResult(7, 2, "token", Outcome.FAILED, 1_700_000_000.5, exit_code=3, error="exit code 3\n\x1b[2J")


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    (tmp_path / "exits").mkdir()
    return tmp_path


def names(state_dir: Path) -> list[str]:
    return sorted(path.name for path in (state_dir / "exits").iterdir())


def test_what_was_written_is_read(state_dir: Path) -> None:
    exit_records.write(state_dir, RESULT)
    assert exit_records.read(state_dir, 7, 2) == RESULT
    assert names(state_dir) == ["7.2.json"]
    assert (state_dir / "exits" / "7.2.json").stat().st_mode & 0o777 == 0o600


def test_no_record_is_none(state_dir: Path) -> None:
    assert exit_records.read(state_dir, 7, 2) is None


WHOLE = msgspec.json.encode(RESULT)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\0" * 100,
        b"[]",
        b'{"job": "7"}',
        b"\xff",
        WHOLE.replace(b"token", b"\xff"),
        WHOLE.replace(b"token", b"\\ud800"),
        WHOLE.replace(b'"token"', b"[" * 100_000),
        b"[" * 100_000,
        WHOLE.replace(b'"exit_code":3', b'"exit_code":' + b"9" * 1000),
        WHOLE + b" " * exit_records.MAX_SIZE,
    ],
)
def test_what_is_no_whole_record_is_none(state_dir: Path, content: bytes) -> None:
    (state_dir / "exits" / "7.2.json").write_bytes(content)
    assert exit_records.read(state_dir, 7, 2) is None


def test_a_lack_of_descriptors_is_not_taken_for_a_lack_of_a_record(state_dir: Path) -> None:
    exit_records.write(state_dir, RESULT)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            exit_records.read(state_dir, 7, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert exit_records.read(state_dir, 7, 2) == RESULT


def test_a_deep_nest_in_a_record_is_no_crash(state_dir: Path) -> None:
    """Whether it is too deep to be read differs between versions of Python."""
    nest = b"[" * 100_000 + b"]" * 100_000
    (state_dir / "exits" / "7.2.json").write_bytes(WHOLE[:-1] + b',"other":' + nest + b"}")
    assert exit_records.read(state_dir, 7, 2) in (None, RESULT)


def test_a_record_that_was_cut_at_any_byte_is_none(state_dir: Path) -> None:
    exit_records.write(state_dir, RESULT)
    path = state_dir / "exits" / "7.2.json"
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert exit_records.read(state_dir, 7, 2) is None


def link_to(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2 * 1024**3)


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def full_directory(path: Path) -> None:
    (path / "full").mkdir(parents=True)


NO_FILES = {
    "a directory": Path.mkdir,
    "a directory with something in it": full_directory,
    "a FIFO": os.mkfifo,
    "a link to /dev/zero": link_to("/dev/zero"),
    "a link to nothing": link_to("nothing"),
    "a link to itself": link_to("7.2.json"),
    "a socket": listening,
    "2 GiB of nothing": sparse,
}


@pytest.mark.parametrize("put", NO_FILES.values(), ids=NO_FILES)
def test_whatever_is_in_its_place_is_no_record_and_in_nobodys_way(state_dir: Path, put: Callable[[Path], None]) -> None:
    """In a process of its own: what waits for a FIFO can't be ended otherwise, what reads without end fills memory."""
    put(state_dir / "exits" / "7.2.json")
    program = """
import resource, signal, sys
from pathlib import Path
from queuectld.attempt_files import exit_records
signal.alarm(30)
resource.setrlimit(resource.RLIMIT_AS, (1024**3, 1024**3))
print(exit_records.read(Path(sys.argv[1]), 7, 2))
exit_records.remove(Path(sys.argv[1]), 7, 2)
exit_records.keep_only(Path(sys.argv[1]), set())
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(state_dir)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "None\n", "")


def test_a_link_is_no_record_though_it_leads_to_one(state_dir: Path) -> None:
    exit_records.write(state_dir, RESULT)
    (state_dir / "exits" / "7.2.json").rename(state_dir / "elsewhere")
    (state_dir / "exits" / "7.2.json").symlink_to(state_dir / "elsewhere")
    assert exit_records.read(state_dir, 7, 2) is None
    exit_records.remove(state_dir, 7, 2)
    assert (state_dir / "elsewhere").exists()


def test_without_its_directory_there_is_no_record(tmp_path: Path) -> None:
    assert exit_records.read(tmp_path, 7, 2) is None
    exit_records.remove(tmp_path, 7, 2)
    exit_records.keep_only(tmp_path, set())
    (tmp_path / "exits").touch()
    assert exit_records.read(tmp_path, 7, 2) is None
    exit_records.remove(tmp_path, 7, 2)
    exit_records.keep_only(tmp_path, set())


def test_it_is_written_again_over_what_an_earlier_try_left(state_dir: Path) -> None:
    (state_dir / "exits" / "7.2.tmp").write_bytes(b"x" * 10_000)
    exit_records.write(state_dir, RESULT)
    exit_records.write(state_dir, RESULT)
    assert exit_records.read(state_dir, 7, 2) == RESULT
    assert names(state_dir) == ["7.2.json"]


def test_remove_takes_all_of_one_attempt_and_nothing_of_others(state_dir: Path) -> None:
    for name in ("7.2.json", "7.2.tmp", "7.1.json", "7.22.json", "17.2.json"):
        (state_dir / "exits" / name).touch()
    exit_records.remove(state_dir, 7, 2)
    exit_records.remove(state_dir, 7, 2)
    assert names(state_dir) == ["17.2.json", "7.1.json", "7.22.json"]


def test_keep_only_keeps_those_that_are_waited_for(state_dir: Path) -> None:
    for name in ("7.2.json", "7.2.tmp", "7.1.json", "8.1.tmp", "strange"):
        (state_dir / "exits" / name).touch()
    full_directory(state_dir / "exits" / "directory")
    exit_records.keep_only(state_dir, {(7, 2)})
    assert names(state_dir) == ["7.2.json", "7.2.tmp", "directory"], "nor is anything else a reason to fail"


def test_a_short_write_is_no_record(state_dir: Path) -> None:
    """As on a disk that became full within the record; a limit of the file's size does the same."""
    program = """
import resource, sys
from pathlib import Path
from queuectl_protocol.jobs import Outcome
from queuectl_protocol.messages import AttemptResult
from queuectld.attempt_files import exit_records
resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
try:
    exit_records.write(Path(sys.argv[1]), AttemptResult(7, 2, "token", Outcome.FAILED, 1.0, exit_code=3))
except OSError as error:
    print(type(error).__name__)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(state_dir)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("OSError\n", "")
    assert "7.2.json" not in names(state_dir)
