"""Where a program is looked for, and what is said of one that can't be started."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from queuectld.worker.launch import NotStarted, spawn

Script = Callable[..., Path]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    def make(place: str, says: str, mode: int = 0o755, interpreter: str = "/bin/sh") -> Path:
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!{interpreter}\nprintf %s {says}\n")
        path.chmod(mode)
        return path

    return make


def output_of(argv: list[str], path: str, cwd: Path) -> str:
    """Of a program that is started with that PATH."""
    reading, writing = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    try:
        pid = spawn(argv, {"PATH": path}, str(cwd), null, writing)
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
        os.close(null)
    assert os.waitpid(pid, 0) == (pid, 0)
    with os.fdopen(reading) as pipe:
        return pipe.read()


def refusal(argv: list[str], path: str, cwd: Path) -> tuple[int, str]:
    with pytest.raises(NotStarted) as caught:
        output_of(argv, path, cwd)
    assert not caught.value.is_passing
    return caught.value.exit_code, caught.value.reason


@pytest.fixture(autouse=True)
def back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`spawn` leaves its process in /; the other tests are to be where they were."""
    monkeypatch.chdir(tmp_path)


def test_the_first_of_the_jobs_own_path_is_taken(script: Script, tmp_path: Path) -> None:
    script("b/tool", "second")
    script("a/tool", "first")
    assert output_of(["tool"], f"{tmp_path}/none:{tmp_path}/a:{tmp_path}/b", tmp_path) == "first"


def test_what_can_not_be_executed_is_passed_over(script: Script, tmp_path: Path) -> None:
    script("plain/tool", "wrong", mode=0o644)
    (tmp_path / "directory" / "tool").mkdir(parents=True)
    script("broken/tool", "wrong", interpreter="/no/such")
    script("good/tool", "good")
    path = ":".join(f"{tmp_path}/{name}" for name in ("plain", "directory", "broken", "good"))
    assert output_of(["tool"], path, tmp_path) == "good"


def test_relative_names_are_relative_to_the_jobs_directory(script: Script, tmp_path: Path) -> None:
    script("home/bin/tool", "here")
    assert output_of(["bin/tool"], "", tmp_path / "home") == "here"
    assert output_of(["tool"], "bin", tmp_path / "home") == "here"


def test_the_process_is_in_the_root_directory_afterwards(script: Script, tmp_path: Path) -> None:
    script("tool", "x")
    output_of(["tool"], str(tmp_path), tmp_path)
    assert Path.cwd() == Path("/")


@pytest.mark.parametrize("argv", [["no-such"], ["/no/such"], ["./no-such"], [""]])
def test_what_is_not_there_is_not_found(argv: list[str], tmp_path: Path) -> None:
    assert refusal(argv, "/usr/bin:/bin", tmp_path) == (127, f"can't find the program {argv[0]}")


def test_what_is_there_and_may_not_be_executed_is_said(script: Script, tmp_path: Path) -> None:
    plain = script("plain", "x", mode=0o644)
    assert refusal([str(plain)], "", tmp_path) == (126, f"can't start {plain}: Permission denied")
    assert refusal(["plain"], f"{tmp_path}:/nowhere", tmp_path) == (126, f"can't start {plain}: Permission denied")


def test_a_missing_interpreter_is_said(script: Script, tmp_path: Path) -> None:
    broken = script("broken", "x", interpreter="/no/such")
    expected = (127, f"can't start {broken}: what is to interpret it is not there")
    assert refusal([str(broken)], "", tmp_path) == expected


def test_a_directory_that_is_not_there_is_said(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    expected = (126, f"can't enter the working directory {gone}: No such file or directory")
    assert refusal(["true"], "/usr/bin:/bin", gone) == expected
