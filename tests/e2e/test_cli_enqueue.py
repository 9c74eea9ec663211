"""`queuectl enqueue` in all its forms, what a job that was typed takes along, and enqueueing in bulk."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pwd
import re
import sqlite3
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.client import argv, shell_environment
from tests.harness import PATIENCE, Daemon, lines_of, running_daemon, wait_for


def enqueue(daemon: Daemon, *arguments: str, cwd: Path | None = None, **environment: str) -> list[str]:
    """Enqueue from a directory, with this environment and nothing else; the ids."""
    done = subprocess.run(
        argv(daemon, "enqueue", *arguments),
        cwd=cwd, env={"PATH": os.environ["PATH"], "PYTHONPATH": daemon.environment["PYTHONPATH"], **environment},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.splitlines()


def environment_of(daemon: Daemon, job: str) -> dict[str, str]:
    """What a job that is `env -0` found."""
    daemon.wait_state(job, "completed")
    return dict(entry.split("=", 1) for entry in daemon.output(job).split("\0") if entry)


def own(environment: dict[str, str]) -> dict[str, str]:
    """Without what every job is told about itself."""
    return {name: value for name, value in environment.items() if not name.startswith("QUEUECTL_")}


def stored_environments(daemon: Daemon) -> int:
    """How many are in the database; read as another program would."""
    with sqlite3.connect(f"file:{daemon.state_dir}/queue.db?mode=ro", uri=True) as connection:
        [count] = connection.execute("SELECT count(*) FROM environments").fetchone()
    connection.close()
    return int(count)


# --- the forms ------------------------------------------------------------------------------------------------------


def test_every_form_prints_the_ids_and_runs_what_was_asked_for(pool: Daemon, directory: Path) -> None:
    jobs = directory / "jobs.jsonl"
    jobs.write_text('{"command": "echo from a file"}\n\n{"argv": ["echo", "a  b"], "id": "last"}')
    forms: list[tuple[list[str], str | None, list[str]]] = [
        (['{"id": "job1", "command": "echo Hello"}'], None, ["Hello\n"]),
        (['[{"command": "echo one"}, {"argv": ["echo", "$HOME"]}]'], None, ["one\n", "$HOME\n"]),
        (["--", "printf", "%s|", "a b", "-x", "--id", ""], None, ["a b|-x|--id||"]),
        (["-c", "echo a && echo b >&2"], None, ["a\nb\n"]),
        (["--file", str(jobs)], None, ["from a file\n", "a  b\n"]),
        (["--file", "-"], '{"command": "echo from a pipe"}\n', ["from a pipe\n"]),
    ]
    for arguments, stdin, outputs in forms:
        done = pool.queuectl("enqueue", *arguments, stdin=stdin)
        assert done.stderr == ""
        ids = done.stdout.splitlines()
        assert len(ids) == len(outputs)
        for job, output in zip(ids, outputs, strict=True):
            pool.wait_state(job, "completed")
            assert pool.output(job) == output
    assert pool.job("job1")["state"] == pool.job("last")["state"] == "completed"


OPTIONS = {
    "queue": ("night", "night"),
    "priority": ("-7", -7),
    "max-retries": ("5", 5),
    "timeout": ("1.5m", 90.0),
    "label": ("a label", "a label"),
}


@pytest.mark.parametrize("form", ["-c", "--", "json", "file"])
def test_options_are_the_same_for_all_forms(daemon: Daemon, directory: Path, form: str) -> None:
    text = '{"command": "true"}'
    (directory / "jobs").write_text(text)
    ends = {"-c": ["-c", "true"], "--": ["--", "true"], "json": [text], "file": ["--file", str(directory / "jobs")]}
    options = [word for name, (typed, _) in OPTIONS.items() for word in (f"--{name}", typed)]
    named = [] if form == "file" else ["--id", "mine"]
    [job] = daemon.queuectl("enqueue", *options, "--delay", "2h", *named, *ends[form]).stdout.splitlines()
    found = daemon.job(job)
    assert {name: found[name.replace("-", "_")] for name in OPTIONS} == {n: value for n, (_, value) in OPTIONS.items()}
    assert job == "mine" or form == "file"
    assert re.search(r"runs: .* \(in [12] h\)", daemon.queuectl("show", job).stdout)


def test_what_json_says_wins_over_options(daemon: Daemon) -> None:
    ids = daemon.queuectl(
        "enqueue", "--queue", "typed", "--max-retries", "9", '[{"command": "a", "queue": "said"}, {"command": "b"}]'
    ).stdout.split()
    found = [daemon.job(job) for job in ids]
    assert [(job["queue"], job["max_retries"]) for job in found] == [("said", 9), ("typed", 9)]


def test_json_answers_for_programs(daemon: Daemon) -> None:
    lines = daemon.queuectl("enqueue", "--json", '[{"id": "a", "command": "x"}, {"id": "b", "command": "y"}]').stdout
    assert [json.loads(line) for line in lines.splitlines()] == [{"id": "a"}, {"id": "b"}]


def test_an_array_is_enqueued_wholly_or_not_at_all(daemon: Daemon) -> None:
    daemon.enqueue("true", id="taken")
    done = daemon.queuectl(
        "enqueue", '[{"id": "new", "command": "true"}, {"id": "taken", "command": "false"}]', check=False
    )
    assert done.returncode == 1
    assert daemon.call("status.get")["counts"]["pending"] == 1


def test_the_same_job_again_is_success_and_one_job(daemon: Daemon, directory: Path) -> None:
    again = {"HOME": "/", "cwd": directory}
    for _ in range(2):
        assert enqueue(daemon, "--id", "a", "-c", "true", **again) == ["a"]  # type: ignore[arg-type]
        assert enqueue(daemon, '{"id": "b", "command": "true"}') == ["b"]
    assert daemon.call("status.get")["counts"]["pending"] == 2


def test_the_same_command_from_another_terminal_is_the_same_job(daemon: Daemon, directory: Path) -> None:
    command = ("--id", "a", "--env", "LEVEL=1", "-c", "true")
    for session in ({"OLDPWD": "/", "SSH_TTY": "/dev/pts/1", "LEVEL": "0"}, {"SHLVL": "7"}, {"TERM": "dumb"}):
        assert enqueue(daemon, *command, cwd=directory, **session) == ["a"]
    assert daemon.call("status.get")["counts"]["pending"] == 1
    assert daemon.call("job.get", id="a", env=True)["env"]["SSH_TTY"] == "/dev/pts/1", "the first one stays"


@pytest.mark.parametrize(
    ("arguments", "fields"),
    [
        (["-c", "false"], "`command`"),
        (["-c", "true", "--priority", "1"], "`priority`"),
        (["-c", "true", "--queue", "q", "--label", "l"], "`queue` and `label`"),
        (["-c", "true", "--cwd", "/usr"], "`cwd`"),
        (["-c", "true", "--max-retries", "7"], "`max_retries`"),
        (["-c", "true", "--timeout", "7"], "`timeout`"),
        (["-c", "true", "--env", "LEVEL=2"], "`env`"),
        (["-c", "true", "--clean-env"], "`exact_env`"),
        (["--", "true"], "`command` and `argv`"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_the_same_id_for_another_job_is_refused_with_the_fields(
    daemon: Daemon, arguments: list[str], fields: str
) -> None:
    level = ["--env", "LEVEL=1", *(["--cwd", "/"] if "--cwd" not in arguments else [])]
    daemon.queuectl("enqueue", "--id", "a", *level, "--cwd", "/", "-c", "true")
    before = daemon.job("a")
    done = daemon.queuectl("enqueue", "--id", "a", *level, *arguments, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines()[0] == f"queuectl: job a is there already, and differs in {fields}"
    assert daemon.job("a") == before


def test_a_job_of_version_0_1_is_known_again(directory: Path) -> None:
    typed = ["--id", "typed", "--delay", "1h", "--max-retries", "2", "--env", "A=1", "-c", "true"]
    written = '{"id": "written", "argv": ["true"], "env": {"A": "1"}, "exact_env": false}'
    with running_daemon(directory) as daemon:
        daemon.queuectl("enqueue", *typed, environment={"SESSION": "1"})
        daemon.queuectl("enqueue", written)
        job = daemon.call("job.get", id="typed", env=True)
        daemon.stop()
        # As that version computed it: every field that was given, the caller's environment too.
        fields = {name: job[name] for name in ("command", "cwd", "env", "exact_env", "max_retries")} | {"delay": 3600.0}
        content = msgspec.json.encode(fields, order="deterministic")
        with contextlib.closing(sqlite3.connect(daemon.state_dir / "queue.db")) as database:
            digest = hashlib.blake2b(content, digest_size=16).digest()
            assert database.execute("UPDATE jobs SET digest = ? WHERE id = 'typed'", (digest,)).rowcount == 1
            database.commit()
        daemon.start()
        daemon.call("config.set", key="job_timeout", value=99)  # what is not given may change
        for session in ("1", "2"):
            daemon.queuectl("enqueue", *typed, environment={"SESSION": session})
        daemon.queuectl("enqueue", written)
        done = daemon.queuectl("enqueue", *typed, "--delay", "2h", check=False)
        assert "job typed is there already, and differs in `delay`" in done.stderr
        assert daemon.call("status.get")["counts"]["pending"] == 2


# --- as if typed ----------------------------------------------------------------------------------------------------


def test_a_command_line_runs_in_this_directory_with_this_environment(single: Daemon, directory: Path) -> None:
    here = directory / "a directory"
    here.mkdir()
    given = {"MARK": "a\nb ü", "HOME": "/nowhere"}
    for arguments in (["--", "sh", "-c", "pwd; env -0"], ["-c", "pwd; env -0"]):
        [job] = enqueue(single, *arguments, cwd=here, **given)
        single.wait_state(job, "completed")
        where, _, variables = single.output(job).partition("\n")
        assert where == str(here)
        found = dict(entry.split("=", 1) for entry in variables.split("\0") if entry)
        shells_own = {"PWD", "OLDPWD", "SHLVL", "_"}
        assert {name: value for name, value in own(found).items() if name not in shells_own} == {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": single.environment["PYTHONPATH"],
            **given,
        }


@pytest.mark.parametrize("given", [{}, {"LC_CTYPE": "C"}, {"LC_CTYPE": "C.UTF-8"}, {"LANG": "C"}, {"LC_ALL": "C"}])
def test_the_locale_is_handed_on_as_it_was(daemon: Daemon, given: dict[str, str]) -> None:
    # The interpreter that runs the client changes LC_CTYPE in its own environment where the locale is C.
    [job] = enqueue(daemon, "--", "true", cwd=None, **given)
    found = daemon.call("job.get", id=job, env=True)["env"]
    assert {name: value for name, value in found.items() if name.startswith(("LC_", "LANG"))} == given


def test_options_change_what_a_command_line_takes_along(single: Daemon, directory: Path) -> None:
    (directory / "sub").mkdir()
    [job] = enqueue(single, "--env", "A=b=c", "--env", "MARK=", "--", "env", "-0", MARK="x", cwd=directory)
    assert environment_of(single, job)["A"] == "b=c"
    assert environment_of(single, job)["MARK"] == ""

    [job] = enqueue(single, "--clean-env", "--env", "A=1", "--", "env", "-0", MARK="x", cwd=directory)
    base = own(environment_of(single, job))
    assert base.pop("A") == "1"
    assert "MARK" not in base
    assert base["HOME"] == pwd.getpwuid(os.getuid()).pw_dir

    [job] = enqueue(single, "--cwd", "sub", "--", "pwd", cwd=directory)
    single.wait_state(job, "completed")
    assert single.output(job) == f"{directory}/sub\n"

    # JSON takes nothing along.
    [job] = enqueue(single, '{"argv": ["env", "-0"], "env": {"A": "1"}}', MARK="x", cwd=directory)
    assert own(environment_of(single, job)) == {**base, "A": "1"}
    assert single.job(job)["cwd"] is None


def test_equal_environments_are_stored_once(daemon: Daemon) -> None:
    assert stored_environments(daemon) == 0
    for word in ("a", "b", "c"):
        enqueue(daemon, "--", word, MARK="x")
    assert stored_environments(daemon) == 1
    enqueue(daemon, "--", "a", MARK="y")
    enqueue(daemon, "--clean-env", "--env", "A=1", "--", "a", MARK="z")
    enqueue(daemon, '{"command": "a", "env": {"A": "1"}}')
    assert stored_environments(daemon) == 3


def test_what_can_not_run_is_enqueued_and_fails_with_the_reason(single: Daemon, directory: Path) -> None:
    once = ("--max-retries", "1")
    [gone] = enqueue(single, *once, "--cwd", str(directory / "gone"), "--", "true")
    [unknown] = enqueue(single, *once, "--", "no-such-program", "x")
    assert single.queuectl("wait", gone, unknown, check=False).returncode == 1
    assert (single.job(gone)["exit_code"], single.job(unknown)["exit_code"]) == (126, 127)
    shown = single.queuectl("show", gone).stdout
    assert f"error:      can't enter the working directory {directory}/gone: No such file or directory" in shown
    assert "error:      can't find the program no-such-program" in single.queuectl("show", unknown).stdout
    assert len(single.wait_workers(1)) == 1, "the worker goes on"


# --- bulk -----------------------------------------------------------------------------------------------------------


def write_jobs(path: Path, jobs: list[dict[str, Any]]) -> list[str]:
    lines = [json.dumps(job) for job in jobs]
    path.write_text("".join(f"{line}\n" for line in lines))
    return lines


@pytest.mark.timeout(300)  # for a machine that has much else to do
def test_ten_thousand_jobs_of_a_file_are_completed_exactly_once_each(directory: Path) -> None:
    count = 10_000
    done = directory / "done"
    write_jobs(
        directory / "jobs", [{"command": f"echo {number} >>{done}", "id": f"n{number}"} for number in range(count)]
    )
    with running_daemon(directory, "--workers", "4") as daemon:
        printed = daemon.queuectl("enqueue", "--file", str(directory / "jobs"))
        assert printed.stdout.splitlines() == [f"n{number}" for number in range(count)]
        assert printed.stderr == ""
        wait_for(lambda: daemon.call("status.get")["counts"]["completed"] == count, "all to be completed", patience=200)
        listed = daemon.queuectl("list", "--state", "completed", "--limit", "0", "--json").stdout.splitlines()
        assert Counter(lines_of(done)) == {str(number): 1 for number in range(count)}
        jobs = [json.loads(line) for line in listed]
        assert [job["id"] for job in jobs] == [f"n{number}" for number in reversed(range(count))]
        assert {job["attempts"] for job in jobs} == {1}


def test_a_bad_line_in_the_middle_is_named_and_the_hint_goes_on_after_it(daemon: Daemon, directory: Path) -> None:
    path = directory / "jobs.jsonl"
    jobs = [{"command": f"echo {number}", "id": f"n{number}"} for number in range(1, 1301)]
    lines = write_jobs(path, jobs)
    bad = lines.copy()
    bad[700] = '{"command": 5}'  # line 701
    path.write_text("\n".join(bad) + "\n")
    done = daemon.queuectl("enqueue", "--file", str(path), check=False)
    assert done.returncode == 2
    said, hint = done.stderr.splitlines()
    assert said.startswith(f"queuectl: {path}: line 701: `command`: expected")
    assert said.endswith("acknowledged: 700 jobs")
    assert done.stdout.splitlines() == [job["id"] for job in jobs[:700]]
    assert daemon.call("status.get")["counts"]["pending"] == 700

    path.write_text("\n".join(lines) + "\n")
    before, _, command = hint.partition(": fix it, and go on with: ")
    assert before == "  hint", "what follows is a command"
    finished = subprocess.run(
        ["/bin/sh", "-ec", command],
        env=shell_environment(directory, daemon), capture_output=True, text=True, check=True, timeout=PATIENCE,
    )  # fmt: skip
    assert finished.stdout.splitlines() == [job["id"] for job in jobs[700:]]
    assert daemon.call("status.get")["counts"]["pending"] == 1300


@pytest.mark.parametrize("first", ['{"command": 5}', '{"command": "other", "id": "taken"}'], ids=["bad", "refused"])
def test_where_nothing_was_enqueued_the_same_command_is_the_hint(daemon: Daemon, directory: Path, first: str) -> None:
    daemon.enqueue("true", id="taken")
    (directory / "jobs").write_text(f'{first}\n{{"command": "true"}}\n')
    done = daemon.queuectl("enqueue", "--file", str(directory / "jobs"), check=False)
    assert done.stderr.splitlines()[1] == (
        "  hint: nothing of the file is enqueued: fix it, and run the same command again"
    )


def test_lines_that_the_daemon_refuses_are_named_and_the_hint_brings_them_in(daemon: Daemon, directory: Path) -> None:
    path = directory / "it's here"
    daemon.enqueue("something else", id="n600")
    jobs = [{"command": f"echo {number}", "id": f"n{number}"} for number in range(1, 1301)]
    write_jobs(path, jobs)
    options = ("--queue", "night", "--priority=-2", "--timeout", "90s")
    done = daemon.queuectl("enqueue", *options, "--file", str(path), check=False)
    assert done.returncode == 1
    said, hint = done.stderr.splitlines()
    assert "job n600 is there already, and differs in `command`, `queue`, `priority` and `timeout`" in said
    assert "lines 501 to 1000 are not enqueued" in said
    acknowledged = set(done.stdout.splitlines())
    listed = daemon.queuectl("list", "--limit", "0", "--json").stdout.splitlines()
    assert {json.loads(line)["id"] for line in listed} == acknowledged | {"n600"}
    assert f"acknowledged: {len(acknowledged)} jobs" in said

    jobs[599]["id"] = "other"
    write_jobs(path, jobs)
    command = hint.partition("go on with: ")[2]
    # The command by itself finds the same daemon, and options say what they said.
    subprocess.run(
        ["/bin/sh", "-ec", command],
        env=shell_environment(directory), capture_output=True, check=True, timeout=PATIENCE,
    )  # fmt: skip
    assert daemon.call("status.get")["counts"]["pending"] == 1301
    listed = daemon.queuectl("list", "--limit", "0", "--json").stdout.splitlines()
    kinds = {(job["queue"], job["priority"], job["timeout"]) for job in map(json.loads, listed) if job["id"] != "n600"}
    assert kinds == {("night", -2, 90.0)}


def test_a_hundred_processes_enqueue_at_once(daemon: Daemon) -> None:
    with ThreadPoolExecutor(20) as threads:
        done = list(threads.map(lambda number: daemon.queuectl("enqueue", "--", "echo", str(number)), range(100)))
    ids = [one.stdout.strip() for one in done]
    assert len(set(ids)) == 100
    assert {one.stderr for one in done} == {""}
    listed = [json.loads(line) for line in daemon.queuectl("list", "--limit", "0", "--json").stdout.splitlines()]
    assert {job["id"]: job["argv"][1] for job in listed} == {job: str(number) for number, job in enumerate(ids)}


def test_twenty_processes_with_the_same_id_make_one_job(daemon: Daemon) -> None:
    with ThreadPoolExecutor(20) as threads:
        done = list(threads.map(lambda _: daemon.queuectl("enqueue", "--id", "one", "--", "true"), range(20)))
    assert {one.stdout for one in done} == {"one\n"}
    assert daemon.call("status.get")["counts"]["pending"] == 1
