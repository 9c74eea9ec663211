"""Looking at jobs and acting on them: list, show, logs, wait, cancel, retry, dlq; as a script calls them."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.client import Terminal, Tree, argv, background, on_terminal, output_of, wait_connected
from tests.harness import PATIENCE, Daemon, seconds


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def listed(daemon: Daemon, *arguments: str) -> list[str]:
    """Ids, as `list` says them, once in a table and once in JSON."""
    found = [job["id"] for job in objects(daemon.queuectl("list", *arguments, "--json").stdout)]
    table = daemon.queuectl("list", *arguments).stdout.splitlines()
    assert [line.split()[0] for line in table[1:]] == found
    return found


def kill_off(daemon: Daemon, *ids: str, **fields: Any) -> None:
    """Jobs that are dead."""
    for job in ids:
        daemon.enqueue("echo no >&2; exit 3", id=job, max_retries=1, **fields)
    for job in ids:
        daemon.wait_state(job, "dead")


# --- list -----------------------------------------------------------------------------------------------------------


def test_list_filters_by_state_and_queue(single: Daemon) -> None:
    kill_off(single, "dead")
    single.enqueue("true", id="done")
    single.wait_state("done", "completed")
    single.enqueue("exit 1", id="failing", max_retries=3)
    single.wait_state("failing", "dead")
    for name, queue in (("a", "default"), ("b", "night"), ("c", "default")):
        single.enqueue("true", id=name, queue=queue, delay=3600)
    single.queuectl("cancel", "c")
    assert listed(single) == ["b", "a"], "newest first; pending if nothing is said"
    assert listed(single, "--state", "pending", "--queue", "night") == ["b"]
    assert listed(single, "--queue", "nosuch") == []
    assert listed(single, "--state", "all", "--limit", "3") == ["c", "b", "a"]
    assert listed(single, "--state", "all") == ["c", "b", "a", "failing", "done", "dead"]
    assert listed(single, "--state", "dead") == ["failing", "dead"]
    assert listed(single, "--state", "cancelled") == ["c"]
    assert listed(single, "--state", "completed") == ["done"]
    assert listed(single, "--state", "processing") == listed(single, "--state", "failed") == []


def test_list_goes_on_beyond_a_page(daemon: Daemon) -> None:
    daemon.call("job.enqueue", jobs=[{"command": "true", "id": f"n{number}"} for number in range(1, 452)])
    newest_first = [f"n{number}" for number in range(451, 0, -1)]
    assert listed(daemon) == newest_first[:50]
    assert listed(daemon, "--limit", "201") == newest_first[:201]
    assert listed(daemon, "--limit", "0") == newest_first


def test_a_job_in_json_has_the_fields_of_the_contract(single: Daemon) -> None:
    kill_off(single, "it")
    [job] = objects(single.queuectl("list", "--state", "dead", "--json").stdout)
    [dead] = objects(single.queuectl("dlq", "list", "--json").stdout)
    assert job == dead
    assert job.keys() >= {
        *("id", "queue", "state", "command", "priority", "attempts", "max_retries", "timeout", "run_at", "created_at"),
        *("updated_at", "exit_code", "error"),
    }
    assert (job["state"], job["exit_code"], job["error"], job["attempts"]) == ("dead", 3, "exit code 3", 1)
    for name in ("run_at", "created_at", "updated_at"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", job[name])
    assert "env" not in job
    assert "history" not in job


def test_a_reader_that_has_seen_enough_is_no_error(daemon: Daemon) -> None:
    # Longer than a pipe holds, so that the command is still writing when `head` goes.
    jobs = [{"command": f"true {'x' * 200}", "id": f"n{number}"} for number in range(1500)]
    daemon.call("job.enqueue", jobs=jobs)
    for json_too in ([], ["--json"]):
        script = '"$@" | head -n 1'
        done = subprocess.run(
            ["/bin/sh", "-c", script, "sh", *argv(daemon, "list", "--limit", "0", *json_too)],
            env=daemon.environment, capture_output=True, text=True, check=True, timeout=PATIENCE,
        )  # fmt: skip
        assert len(done.stdout.splitlines()) == 1
        assert done.stderr == ""
    assert daemon.call("status.get")["counts"]["pending"] == 1500


# --- show -----------------------------------------------------------------------------------------------------------


def test_show_tells_every_attempt(single: Daemon, directory: Path) -> None:
    command = f"echo x >>{directory}/n; exit $(wc -l <{directory}/n)"
    single.queuectl("enqueue", "--id", "it", "--max-retries", "2", "--label", "a label", "-c", command)
    single.wait_state("it", "dead")
    shown = single.queuectl("show", "it").stdout
    facts = dict(re.findall(r"^(\w[\w ]*):\s+(.*)$", shown, re.MULTILINE))
    assert facts["id"] == "it"
    assert facts["state"] == "dead"
    assert facts["command"] == command
    assert facts["label"] == "a label"
    assert facts["attempts"] == "2 of 2"
    assert facts["exit code"] == "2"
    table = [line.split()[:3] for line in shown.partition("\n\n")[2].splitlines()]
    assert table == [["ATTEMPT", "OUTCOME", "EXIT"], ["1", "failed", "1"], ["2", "failed", "2"]]

    [job] = objects(single.queuectl("show", "it", "--json").stdout)
    assert [(made["number"], made["outcome"], made["exit_code"]) for made in job["history"]] == [
        (1, "failed", 1),
        (2, "failed", 2),
    ]
    assert job["command"] == command
    assert job["label"] == "a label"


def test_show_tells_the_environment_only_where_asked_for(daemon: Daemon) -> None:
    daemon.queuectl("enqueue", "--id", "it", "--clean-env", "--env", "SECRET=a  b", "--", "true")
    assert "SECRET" not in daemon.queuectl("show", "it").stdout
    assert "SECRET" not in daemon.queuectl("show", "it", "--json").stdout
    assert re.search("^environment: +SECRET=a  b$", daemon.queuectl("show", "it", "--env").stdout, re.MULTILINE)
    assert objects(daemon.queuectl("show", "it", "--env", "--json").stdout)[0]["env"] == {"SECRET": "a  b"}


def test_what_show_prints_can_be_enqueued_and_is_the_same_job(
    make_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    first, second = (make_daemon("--workers", "1").start() for _ in range(2))
    say = 'printf "%s\\n" "$0" "$@"; pwd; env -0 | grep -zv "^QUEUECTL_LEASE=\\|^_=" | sort -z | tr "\\0" "\\n"'
    jobs = ["typed", "clean", "written"]
    given = (
        "--queue",
        "q",
        "--priority",
        "7",
        "--max-retries",
        "1",
        "--timeout",
        "9",
        "--label",
        "ä",
        "--env",
        "A= 1\n",
    )
    first.queuectl("enqueue", "--id", "typed", *given, "--cwd", str(tmp_path), "--", "sh", "-c", say, "a b", "")
    first.queuectl("enqueue", "--id", "clean", "--clean-env", "--env", "B=2", "-c", say)
    first.queuectl("enqueue", json.dumps({"id": "written", "command": say}))
    first.queuectl("wait", *jobs)
    printed = "".join(first.queuectl("show", job, "--json", "--env").stdout for job in jobs)
    second.queuectl("enqueue", "--file", "-", stdin=printed)
    second.queuectl("wait", *jobs)
    for job in jobs:
        assert second.output(job) == first.output(job) != ""
        before, after = (one.call("job.get", id=job, env=True) for one in (first, second))
        assert {*before} == {*after}
        made = {"created_at", "updated_at", "run_at", "history"}
        assert {name: value for name, value in after.items() if name not in made} == {
            name: value for name, value in before.items() if name not in made
        }
    # Where the jobs are, they are the same ones.
    assert first.queuectl("enqueue", "--file", "-", stdin=printed).stdout.split() == jobs
    assert first.queuectl("enqueue", f"[{','.join(printed.splitlines())}]").stdout.split() == jobs
    assert first.call("status.get")["counts"]["completed"] == len(jobs)

    without = first.queuectl("show", "typed", "--json").stdout
    done = second.queuectl("enqueue", "--file", "-", stdin=without, check=False)
    assert done.returncode == 2
    assert "line 1: this job was printed without its environment" in done.stderr
    assert "queuectl show JOB --json --env" in done.stderr


def test_a_delayed_job_that_is_printed_and_enqueued_again_keeps_its_time(daemon: Daemon) -> None:
    daemon.queuectl("enqueue", "--id", "later", "--delay", "1h", "--", "true")
    daemon.queuectl("enqueue", "--id", "due", "--", "true")
    printed = daemon.queuectl("show", "later", "--json", "--env").stdout
    printed += daemon.queuectl("show", "due", "--json", "--env").stdout
    daemon.queuectl("enqueue", "--file", "-", stdin=printed.replace('"id":"', '"id":"again-'))
    first = seconds(daemon.job("later")["run_at"])
    again = daemon.job("again-later")
    assert first <= seconds(again["run_at"]) < first + PATIENCE
    assert daemon.job("again-due")["run_at"] == daemon.job("again-due")["created_at"]


def test_a_field_that_the_daemon_makes_is_ignored_in_printed_jobs_only(daemon: Daemon) -> None:
    done = daemon.queuectl("enqueue", '{"command": "true", "run_at": "2030-01-01T00:00:00Z"}', check=False)
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "queuectl: unknown field `run_at`")


def test_a_unique_prefix_is_enough_for_every_command(single: Daemon) -> None:
    kill_off(single, "alpha-1")
    for words in (["show"], ["logs"], ["dlq", "retry"], ["wait"], ["dlq", "purge"]):
        done = single.queuectl(*words, "alp", check=False)
        assert done.returncode == (words == ["wait"]), done.stderr  # it is dead again
    assert single.queuectl("show", "alp", check=False).returncode == 1


# --- logs -----------------------------------------------------------------------------------------------------------


def test_logs_of_any_attempt_and_the_last_lines(single: Daemon, directory: Path) -> None:
    command = (
        f"echo x >>{directory}/n; n=$(wc -l <{directory}/n); for i in 1 2 3; do echo $n.$i; done; printf end; exit 1"
    )
    single.enqueue(command, id="it", max_retries=2)
    single.wait_state("it", "dead")
    assert single.queuectl("logs", "it").stdout == "2.1\n2.2\n2.3\nend"
    assert single.queuectl("logs", "it", "--attempt", "1").stdout == "1.1\n1.2\n1.3\nend"
    assert single.queuectl("logs", "it", "--tail", "2").stdout == "2.3\nend"
    assert single.queuectl("logs", "it", "--tail", "0").stdout == ""
    assert single.queuectl("logs", "it", "--attempt", "1", "--tail", "100").stdout == "1.1\n1.2\n1.3\nend"
    [piece] = objects(single.queuectl("logs", "it", "--json").stdout)
    assert (piece["attempt"], piece["text"], piece["end"]) == (2, "2.1\n2.2\n2.3\nend", True)


def test_logs_pass_bytes_through_as_they_are_and_all_of_them(single: Daemon) -> None:
    single.enqueue("yes 0123456789abcde | head -c 3000000; printf '\\377\\000\\033[31m'", id="it")
    single.wait_state("it", "completed")
    done = subprocess.run(
        argv(single, "logs", "it"), env=single.environment, capture_output=True, check=True, timeout=PATIENCE
    )
    assert done.stdout == (b"0123456789abcde\n" * 200_000)[:3_000_000] + b"\xff\x00\x1b[31m"


def test_logs_follow_until_the_attempt_has_ended(single: Daemon, directory: Path) -> None:
    single.enqueue(f"echo first; until [ -e {directory}/go ]; do sleep 0.02; done; echo last", id="it", delay=0.3)
    with background(single, "logs", "-f", "it") as process:  # it has not begun yet
        assert output_of(process.stdout).readline() == "first\n"
        assert single.queuectl("logs", "it").stdout == "first\n"
        (directory / "go").touch()
        assert output_of(process.stdout).read() == "last\n"
        assert process.wait(PATIENCE) == 0
        assert output_of(process.stderr).read() == ""


def test_logs_of_a_job_that_never_began(daemon: Daemon) -> None:
    daemon.enqueue("true", id="it")
    done = daemon.queuectl("logs", "it")
    assert (done.stdout, done.stderr.splitlines()[0]) == (
        "",
        "queuectl: job it has not started, so there is no output: no worker runs",
    )
    assert "queuectl worker start" in done.stderr
    daemon.enqueue("true", id="later", delay=3600)
    assert "job later has not started, so there is no output: it is to run in " in daemon.queuectl("logs", "lat").stderr
    with background(daemon, "logs", "-f", "it") as process:
        daemon.queuectl("cancel", "it")
        output, remarks = process.communicate(timeout=PATIENCE)
        assert (process.returncode, output) == (0, "")
    assert remarks.splitlines()[-1] == "queuectl: job it was never started, so there is no output: it was cancelled"
    done = daemon.queuectl("logs", "it")
    assert done.stderr == "queuectl: job it was never started, so there is no output: it was cancelled\n"


def test_logs_of_an_attempt_that_could_not_be_started_say_why(single: Daemon, directory: Path) -> None:
    once = ("--max-retries", "1")
    single.queuectl("enqueue", "--id", "gone", *once, "--cwd", f"{directory}/gone", "--", "true")
    single.queuectl("enqueue", "--id", "unknown", *once, "--", "no-such-program")
    single.queuectl("enqueue", "--id", "silent", *once, "-c", "exit 3")
    single.queuectl("enqueue", "--id", "fine", "--", "true")
    single.queuectl("wait", "gone", "unknown", "silent", "fine", check=False)
    expected = {
        "gone": f"can't enter the working directory {directory}/gone: No such file or directory",
        "unknown": "can't find the program no-such-program",
        "silent": "exit code 3",
    }
    for follow in ([], ["-f"], ["--attempt", "1"]):
        for job, reason in expected.items():
            done = single.queuectl("logs", *follow, job)
            assert (done.stdout, done.stderr.splitlines()[0]) == (
                "",
                f"queuectl: attempt 1 of job {job} wrote nothing: {reason}",
            )
        assert single.queuectl("logs", *follow, "fine").stderr == ""
    assert single.queuectl("logs", "--json", "gone").stderr == ""


def test_following_ends_with_control_c_and_the_job_goes_on(single: Daemon, directory: Path) -> None:
    single.enqueue(f"echo first; until [ -e {directory}/go ]; do sleep 0.02; done", id="it")
    with Terminal(argv(single, "logs", "-f", "it"), single.environment) as terminal:
        terminal.read_until(lambda output: "first" in output, "the output")
        terminal.send("\x03")
        assert terminal.finish() == 130
        assert "Traceback" not in terminal.output
    assert single.job("it")["state"] == "processing"
    (directory / "go").touch()
    single.wait_state("it", "completed")


# --- wait -----------------------------------------------------------------------------------------------------------


def test_wait_returns_when_all_have_ended_and_is_0_only_if_all_completed(pool: Daemon, directory: Path) -> None:
    kill_off(pool, "dead")
    pool.enqueue(f"until [ -e {directory}/go ]; do sleep 0.02; done", id="slow")
    pool.enqueue("true", id="quick")
    with background(pool, "wait", "quick", "slow") as good, background(pool, "wait", "slow", "dead", "quick") as bad:
        pool.wait_state("quick", "completed")
        assert good.poll() is None
        assert bad.poll() is None
        (directory / "go").touch()
        assert good.communicate(timeout=PATIENCE)[0] == "quick\tcompleted\nslow\tcompleted\n"
        assert bad.communicate(timeout=PATIENCE)[0] == "slow\tcompleted\ndead\tdead\nquick\tcompleted\n"
        assert (good.returncode, bad.returncode) == (0, 1)
    pool.enqueue("true", id="off", delay=3600)
    pool.queuectl("cancel", "off")
    assert pool.queuectl("wait", "off", check=False).returncode == 1
    assert objects(pool.queuectl("wait", "quick", "--json").stdout)[0]["state"] == "completed"


def test_wait_gives_up_when_the_time_is_over(daemon: Daemon) -> None:
    daemon.enqueue("true", id="it")
    done = daemon.queuectl("wait", "it", "--timeout", "100ms", check=False)
    assert (done.returncode, done.stdout) == (1, "it\tpending\n")
    assert done.stderr.splitlines()[-1] == "queuectl: job it had not ended after 0.1 s"


# --- cancel, retry --------------------------------------------------------------------------------------------------


def test_cancel_in_every_state(single: Daemon, directory: Path) -> None:
    single.call("config.set", key="backoff_base", value=600)
    tree = Tree(directory)
    single.enqueue("exit 1", id="failing")
    single.wait_state("failing", "failed")
    single.enqueue(tree.command, id="running")
    tree.pids()
    single.enqueue("true", id="waiting")
    done = single.queuectl("cancel", "waiting", "failing", "running")
    assert done.stdout == "waiting\tcancelled\nfailing\tcancelled\nrunning\tcancelled\n"
    assert tree.is_gone(), "it waited for the end of the whole tree"
    assert single.queuectl("cancel", "waiting").stdout == "waiting\tcancelled\n", "it is what was asked for"
    single.wait_workers(1)


def test_cancel_need_not_wait(single: Daemon, directory: Path) -> None:
    single.call("config.set", key="kill_grace", value=600)
    tree = Tree(directory)
    single.enqueue(f"trap '' TERM; {tree.command}", id="running")
    tree.pids()
    assert single.queuectl("cancel", "--no-wait", "running").stdout == "running\tprocessing\n"
    assert not tree.is_gone()
    assert single.queuectl("list", "--state", "processing").stdout.splitlines()[1].split()[:2] == [
        "running",
        "cancelling",
    ]


def test_cancel_takes_all_or_none(single: Daemon) -> None:
    single.enqueue("true", id="done")
    single.wait_state("done", "completed")
    single.enqueue("true", id="waiting", delay=3600)
    done = single.queuectl("cancel", "waiting", "done", check=False)
    assert done.returncode == 1
    assert done.stderr == "queuectl: job done has already completed\n"
    assert single.job("waiting")["state"] == "pending"


def test_retry_runs_ended_jobs_again(single: Daemon, directory: Path) -> None:
    kill_off(single, "dead")
    single.enqueue("true", id="off", delay=3600)
    single.queuectl("cancel", "off")
    single.queuectl("worker", "stop", "--wait")
    assert single.queuectl("retry", "dead", "off").stdout == "dead\tpending\noff\tpending\n"
    assert single.job("dead")["attempts"] == 0
    assert len(single.job("dead")["history"]) == 1
    single.queuectl("worker", "start")
    single.wait_state("off", "completed")
    single.wait_state("dead", "dead")
    done = single.queuectl("retry", "off", check=False)
    assert done.returncode == 1
    assert "has completed" in done.stderr


# --- the dead letter queue ------------------------------------------------------------------------------------------


def test_dlq_list_filters_and_tells_the_reason(single: Daemon) -> None:
    kill_off(single, "a", "b")
    kill_off(single, "c", queue="night")
    lines = single.queuectl("dlq", "list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["ID", "c", "b", "a"]
    assert all("exit code 3" in line for line in lines[1:])
    assert [job["id"] for job in objects(single.queuectl("dlq", "list", "--queue", "night", "--json").stdout)] == ["c"]
    assert [job["id"] for job in objects(single.queuectl("dlq", "list", "--limit", "2", "--json").stdout)] == ["c", "b"]


def test_dlq_retry_some_or_all(single: Daemon) -> None:
    kill_off(single, "a", "b", "c")
    single.queuectl("worker", "stop", "--wait")
    assert single.queuectl("dlq", "retry", "b").stdout == "Back to pending: 1 job.\n"
    assert {job: single.job(job)["state"] for job in "abc"} == {"a": "dead", "b": "pending", "c": "dead"}
    assert single.job("b")["attempts"] == 0
    assert len(single.job("b")["history"]) == 1
    assert json.loads(single.queuectl("dlq", "retry", "--all", "--json").stdout) == {"count": 2}
    assert single.queuectl("dlq", "list", "--json").stdout == ""
    assert single.queuectl("dlq", "retry", "--all").stdout == "There are no dead jobs.\n"


def test_dlq_purge_some_or_all(single: Daemon) -> None:
    kill_off(single, "a", "b", "c")
    single.enqueue("true", id="kept")
    single.wait_state("kept", "completed")
    assert single.queuectl("dlq", "purge", "b").stdout == "Deleted: 1 job.\n"
    assert single.queuectl("show", "b", check=False).returncode == 1
    assert single.queuectl("dlq", "purge", "a", "kept", check=False).returncode == 1, "all or none"
    assert single.job("a")["state"] == "dead"
    assert single.queuectl("dlq", "purge", "--all").stdout == "Deleted: 2 jobs.\n"
    assert listed(single, "--state", "all") == ["kept"]


def test_on_a_terminal_a_purge_of_all_is_asked_about(single: Daemon) -> None:
    kill_off(single, "a")
    for answer, status in (("n\r", 1), ("\x03", 130), ("\x04", 1)):
        with Terminal(argv(single, "dlq", "purge", "--all"), single.environment) as terminal:
            assert "Delete all dead jobs (1), attempts and logs included?" in terminal.asked("[y/N]:")
            terminal.send(answer)
            assert terminal.finish() == status
            assert "Traceback" not in terminal.output
        assert single.job("a")["state"] == "dead"
    with Terminal(argv(single, "dlq", "purge", "--all"), single.environment) as terminal:
        terminal.asked("[y/N]:")
        terminal.send("y\r")
        assert terminal.finish() == 0
        assert "Deleted: 1 job." in terminal.output
    assert listed(single, "--state", "all") == []


def test_what_is_named_is_not_asked_about(single: Daemon) -> None:
    kill_off(single, "a", "b", "c")
    assert on_terminal(single, "dlq", "purge", "a") == (0, "Deleted: 1 job.\n")
    assert on_terminal(single, "dlq", "purge", "--all", "--yes") == (0, "Deleted: 2 jobs.\n")
    status, seen = on_terminal(single, "dlq", "purge")
    assert (status, seen.splitlines()[0]) == (2, "queuectl: give jobs, or --all to delete all dead jobs")


@pytest.mark.parametrize("command", ["retry", "purge"])
def test_where_no_job_is_dead_nothing_is_asked(daemon: Daemon, command: str) -> None:
    assert on_terminal(daemon, "dlq", command, "--all") == (0, "There are no dead jobs.\n")
    assert daemon.queuectl("dlq", command, "--all", "--json").stdout == '{"count":0}\n'


def test_waiting_is_ended_by_a_signal_and_the_jobs_go_on(single: Daemon) -> None:
    single.enqueue("true", id="it", delay=3600)
    with background(single, "wait", "it") as process:
        wait_connected(process)
        process.send_signal(signal.SIGINT)
        output, remarks = process.communicate(timeout=PATIENCE)
        assert (process.returncode, output, remarks.strip()) == (130, "", "")
    assert single.job("it")["state"] == "pending"


# --- many jobs of a queue that goes on ------------------------------------------------------------------------------


def test_cancel_of_many_passes_over_what_ended_or_went(single: Daemon, directory: Path) -> None:
    kill_off(single, "dead", "removed")
    single.queuectl("dlq", "purge", "removed")
    single.enqueue("true", id="done")
    single.wait_state("done", "completed")
    tree = Tree(directory)
    single.enqueue(tree.command, id="runs")
    tree.pids()
    single.call(
        "job.enqueue", jobs=[{"command": "true", "id": f"n{number}", "delay": 3600} for number in range(1, 1503)]
    )
    single.enqueue("true", id="removed-not", delay=3600)
    ids = ["dead", "removed", "done", "", "runs", *(f"n{number}" for number in range(1, 1502)), "n1", "no/such"]
    done = single.queuectl("cancel", "--ids-from", "-", stdin="\n".join(ids))
    assert len(done.stdout.splitlines()) == 1502
    assert done.stdout.splitlines()[:2] == ["runs\tcancelled", "n1\tcancelled"]
    assert done.stderr.startswith("queuectl: 4 jobs were passed over: ")
    assert tree.is_gone()
    assert [single.job(job)["state"] for job in ("dead", "done", "n1502", "removed-not")] == [
        "dead", "completed", "pending", "pending",
    ], "an id is no prefix there"  # fmt: skip


def test_retry_of_many_passes_over_what_can_not_be(single: Daemon, directory: Path) -> None:
    kill_off(single, "a")
    single.enqueue("true", id="done")
    single.wait_state("done", "completed")
    single.enqueue("true", id="b", delay=3600)
    single.queuectl("cancel", "b")
    (directory / "ids").write_text("a\nb\ndone\nnosuch\n")
    done = single.queuectl("retry", "--ids-from", str(directory / "ids"))
    assert done.stdout.splitlines() == ["a\tpending", "b\tpending"]
    assert done.stderr.startswith("queuectl: 2 jobs were passed over: ")
    assert single.queuectl("retry", "--ids-from", "-", stdin="").stdout == ""


def test_a_file_of_ids_that_holds_no_ids_is_wrong_usage(daemon: Daemon, directory: Path) -> None:
    daemon.enqueue("true", id="a")
    for words, stdin in (
        (["--ids-from", "-"], "a\na b\n"),
        (["--ids-from", "-"], "a" * 200),
        (["--ids-from", str(directory / "nosuch")], None),
        (["--ids-from", str(directory)], None),
        (["--ids-from", "-", "a"], "a\n"),
        ([], None),
    ):
        done = daemon.queuectl("cancel", *words, stdin=stdin, check=False)
        assert done.returncode == 2
        assert done.stderr.startswith("queuectl: ")
    assert daemon.job("a")["state"] == "pending"
