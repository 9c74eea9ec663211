"""What a person sees on a terminal, and a program in a pipe: colours, widths, the live view, and nothing harmful."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len

from tests.client import COLOUR, COLOURS, Terminal, argv, on_terminal
from tests.harness import PATIENCE, Daemon, running_daemon

NASTY = "\x1b[2J\x1b]0;owned\x07 \x9b31m \r\n\u202e\u2066\u200b\ufeff \x7f\x08"
"""Clear the screen, set the title (with ESC and with C1), overwrite a line, turn its direction, hide."""


@pytest.fixture(scope="module")
def full() -> Iterator[Daemon]:
    """One daemon for all who only look, with text that others chose wherever there is room for it."""
    with (
        tempfile.TemporaryDirectory(prefix="qctl-", ignore_cleanup_errors=True) as path,
        running_daemon(Path(path), "--workers", "1", settings={"backoff_base": 0}) as daemon,
    ):
        nasty = {"label": f"label {NASTY}", "max_retries": 1}
        daemon.call("job.enqueue", jobs=[
            {"id": "dead", "command": f"exit 3 # {NASTY}", "env": {"A": NASTY}, **nasty},
            {"id": "lost", "argv": [f"no-{NASTY}", NASTY], **nasty},
            {"id": "gone", "command": "true", "cwd": f"/no/{NASTY}", **nasty},
            {"id": "wide", "command": "true " + "漢字 " * 30, "label": "ü" * 150},
        ])  # fmt: skip
        for job in ("dead", "lost", "gone"):
            daemon.wait_state(job, "dead")
        daemon.wait_state("wide", "completed")
        daemon.call("job.enqueue", jobs=[
            {"id": "waits", "command": f"echo {NASTY}", "delay": 3600, "queue": "q" * 100, **nasty},
            {"id": "x" * 128, "command": "true", "delay": 3600},
        ])  # fmt: skip
        yield daemon


LOOKS = [
    ["list", "--state", "all"],
    ["list", "--queue", "q" * 100],
    ["show", "dead", "--env"],
    ["show", "lost"],
    ["show", "gone"],
    ["status"],
    ["dlq", "list"],
    ["worker", "list"],
    ["config", "list"],
    ["daemon", "status"],
]


def is_plain(text: str) -> bool:
    return all(character.isprintable() or character == "\n" for character in text)


@pytest.mark.parametrize("look", LOOKS, ids=" ".join)
def test_no_control_character_reaches_a_terminal_or_a_pipe(full: Daemon, look: list[str]) -> None:
    status, seen = on_terminal(full, *look, columns=200)
    assert status == 0
    assert is_plain(COLOURS.sub("", seen)), "nothing but our own colours"
    _, seen = on_terminal(full, *look, columns=200, TERM="dumb")
    assert is_plain(seen)
    assert is_plain(full.queuectl(*look).stdout)
    _, seen = (
        on_terminal(full, *look, "--json") if look[0] != "show" else on_terminal(full, *look, "--json", columns=40)
    )
    assert is_plain(seen)


def test_what_was_harmful_is_seen_as_an_escape(full: Daemon) -> None:
    seen = COLOURS.sub("", on_terminal(full, "dlq", "list", columns=400)[1])
    assert r"can't find the program no-\x1b[2J\x1b]0;owned\x07 \x9b31m" in seen
    assert r"/no/\x1b[2J" in seen
    seen = COLOURS.sub("", on_terminal(full, "show", "dead", columns=400)[1])
    assert r"\u202e\u2066\u200b\ufeff" in seen


def test_json_means_the_same_on_a_terminal_and_in_a_pipe(full: Daemon) -> None:
    _, seen = on_terminal(full, "show", "dead", "--json")
    assert json.loads(seen) == json.loads(full.queuectl("show", "dead", "--json").stdout)
    assert json.loads(seen)["label"] == f"label {NASTY}"


def test_remarks_hold_no_control_characters(full: Daemon) -> None:
    status, seen = on_terminal(full, "run", "--max-retries", "1", "--", f"no-{NASTY}")
    assert status == 127
    assert is_plain(seen)
    assert r"can't find the program no-\x1b[2J" in seen
    status, seen = on_terminal(full, "show", NASTY)
    assert status == 1
    assert is_plain(seen)
    status, seen = on_terminal(
        full, "enqueue", f'{{"command": "true", "{NASTY.encode("unicode_escape").decode()}": 1}}'
    )
    assert status == 2
    assert is_plain(seen)


@pytest.mark.parametrize("columns", [20, 80, 200])
def test_everything_fits_the_terminal(full: Daemon, columns: int) -> None:
    for look in LOOKS:
        status, seen = on_terminal(full, *look, columns=columns)
        assert status == 0
        lines = COLOURS.sub("", seen).splitlines()
        assert len(lines) > 1
        assert not [line for line in lines if cell_len(line.rstrip()) > columns], f"{look} at {columns}:\n{seen}"


def test_the_variable_wins_over_the_terminal(full: Daemon) -> None:
    _, seen = on_terminal(full, "list", "--state", "all", columns=200, COLUMNS="40")
    lines = [cell_len(line.rstrip()) for line in COLOURS.sub("", seen).splitlines()]
    assert max(lines) <= 40
    assert max(lines) > 20


def test_in_a_pipe_nothing_is_cut(full: Daemon) -> None:
    lines = full.queuectl("list", "--state", "all", environment={"COLUMNS": "20"}).stdout.splitlines()
    assert any("漢字 " * 30 in line and "ü" * 150 in line for line in lines)
    assert any(line.startswith("x" * 128 + "  pending") for line in lines)


def test_colours_are_for_terminals_and_for_those_who_want_them(full: Daemon) -> None:
    look = ["list", "--state", "dead"]
    assert COLOUR.search(on_terminal(full, *look)[1])
    assert not COLOUR.search(on_terminal(full, *look, NO_COLOR="1")[1])
    assert "\x1b" not in on_terminal(full, *look, TERM="dumb")[1]
    assert "\x1b" not in full.queuectl(*look).stdout
    # To a file, from a terminal: what counts is where the answer goes.
    with tempfile.TemporaryFile() as file:
        with Terminal(argv(full, *look), full.environment, stdout=file) as terminal:
            assert terminal.finish() == 0
            assert terminal.output == ""
        file.seek(0)
        assert file.read().decode().startswith("ID ")


def test_nothing_found_is_said_to_people_only(daemon: Daemon) -> None:
    assert on_terminal(daemon, "list") == (0, "No pending jobs (`--state all` lists all).\n")
    assert on_terminal(daemon, "list", "--state", "all") == (0, "No jobs.\n")
    assert on_terminal(daemon, "dlq", "list") == (0, "No dead jobs.\n")
    assert daemon.queuectl("list", "--json").stdout == ""
    for look in (["list"], ["dlq", "list"]):
        assert daemon.queuectl(*look).stderr == ""


def test_a_list_that_was_cut_says_so_on_a_terminal(daemon: Daemon) -> None:
    daemon.call("job.enqueue", jobs=[{"command": "true", "id": f"n{number}"} for number in range(4)])
    _, seen = on_terminal(daemon, "list", "--limit", "3")
    assert seen.splitlines()[-1] == "There are more than these 3: `--limit 0` lists all."
    assert "There are more" not in on_terminal(daemon, "list", "--limit", "4")[1]


# --- the live view --------------------------------------------------------------------------------------------------


def test_watch_draws_over_itself_until_control_c(daemon: Daemon) -> None:
    command = argv(daemon, "status", "--watch", "0.1")
    with Terminal(command, daemon.environment, columns=60) as terminal:
        terminal.read_until(lambda output: "Ctrl-C ends this" in output, "the first picture")
        assert "\x1b[?25l" in terminal.output, "the cursor is hidden meanwhile"
        begin = len(terminal.output)
        daemon.queuectl("enqueue", '[{"command": "a"}, {"command": "b"}, {"command": "c"}]')
        terminal.read_until(
            lambda output: "     3" in COLOURS.sub("", output[begin:]).rpartition("pending")[2][:12], "the new jobs"
        )
        assert "\x1b[1A" in terminal.output[begin:], "drawn over the picture before"
        terminal.send("\x03")
        assert terminal.finish() == 130
        assert terminal.output.rindex("\x1b[?25h") > terminal.output.rindex("\x1b[?25l"), "the cursor is back"
        assert "Traceback" not in terminal.output


def test_watch_ends_with_the_daemon(daemon: Daemon) -> None:
    with Terminal(argv(daemon, "status", "--watch", "0.1"), daemon.environment) as terminal:
        terminal.read_until(lambda output: "Ctrl-C ends this" in output, "the first picture")
        assert daemon.stop() == 0
        assert terminal.finish() == 3
        assert "no daemon answers at" in terminal.output
        assert terminal.output.rindex("\x1b[?25h") > terminal.output.rindex("\x1b[?25l")


# --- the progress bar -----------------------------------------------------------------------------------------------


def test_a_bar_on_the_terminal_and_only_ids_in_the_pipe(daemon: Daemon, directory: Path) -> None:
    path = directory / "jobs"
    path.write_text("".join(f'{{"command": "true", "id": "n{number}"}}\n' for number in range(2000)))
    command = argv(daemon, "enqueue", "--file", str(path))
    with tempfile.TemporaryFile() as file:
        with Terminal(command, daemon.environment, stdout=file) as terminal:
            assert terminal.finish() == 0
            assert "2,000 jobs" in terminal.output
            assert "n1999" not in terminal.output
        file.seek(0)
        assert file.read().decode().split() == [f"n{number}" for number in range(2000)]


def test_ids_on_a_terminal_stand_on_lines_of_their_own(daemon: Daemon, directory: Path) -> None:
    path = directory / "jobs"
    path.write_text("".join(f'{{"command": "true", "id": "n{number}"}}\n' for number in range(100)))
    status, seen = on_terminal(daemon, "enqueue", "--file", str(path), TERM="dumb")
    assert status == 0
    assert {f"n{number}" for number in range(100)} <= set(seen.split())


def test_no_bar_in_a_pipe(daemon: Daemon) -> None:
    done = daemon.queuectl("enqueue", "--file", "-", stdin='{"command": "true"}\n' * 1000)
    assert done.stderr == ""
    assert len(done.stdout.split()) == 1000


def test_jobs_typed_on_a_terminal_end_with_control_d(daemon: Daemon) -> None:
    with Terminal(argv(daemon, "enqueue", "--file", "-"), daemon.environment) as terminal:
        terminal.read_until(lambda output: "end with Ctrl-D" in output, "how to end")
        terminal.send('{"id": "typed", "command": "true"}\r')
        terminal.read_until(lambda output: "\ntyped\r" in output, "the id, at once")
        terminal.send("\x04")
        assert terminal.finish() == 0
    assert daemon.job("typed")["state"] == "pending"


# --- where no terminal can be ---------------------------------------------------------------------------------------


def test_an_answer_that_can_not_be_written_is_an_error(full: Daemon) -> None:
    with Path("/dev/full").open("wb") as file:
        for look in (["list", "--state", "all"], ["status", "--json"]):
            done = subprocess.run(
                argv(full, *look),
                env=full.environment, stdout=file, stderr=subprocess.PIPE, check=False, timeout=PATIENCE,
            )  # fmt: skip
            assert done.returncode == 1
            assert b"No space left on device" in done.stderr
            assert b"Traceback" not in done.stderr


def test_an_ascii_locale_shows_escapes_and_does_not_fail(full: Daemon) -> None:
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    done = full.queuectl("list", "--state", "all", environment=environment)
    assert done.stdout.isascii()
    assert r"\u6f22" in done.stdout
    assert done.stderr == ""
