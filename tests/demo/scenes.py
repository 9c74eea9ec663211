"""The scenes of the demo, in the order in which they are played. Each one is checked."""

from __future__ import annotations

import gzip
import json
import shlex
import shutil
import signal
import sys
import sysconfig
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from msgspec import UNSET

from queuectl_protocol.jobs import JobState, WorkerState
from tests.demo.stage import Stage, expect, session_of
from tests.harness import is_running

FILES = 36
WORKERS = 3
DAEMON = "queuectl daemon start --state-dir state"


class Totals(NamedTuple):
    """What the queue has done in the whole demo."""

    jobs: int
    attempts: int


STUBBORN = """\
trap '' TERM            # deaf to polite requests; what it starts is too
sleep 600 &             # a child ...
setsid sleep 600 &      # ... and one that flees into a session of its own
echo ready
wait
"""


def start_daemon(stage: Stage) -> None:
    stage.scene(
        "A daemon of its own",
        "It lives in a temporary directory and has a socket of its own: a queue that you may already have is not"
        " touched. It starts in the background and is ready when the command returns.",
    )
    stage.type(DAEMON)
    info = stage.client.info()
    expect(
        Path(info.state_dir) == stage.directory / "state", f"the daemon keeps its state elsewhere, in {info.state_dir}"
    )
    expect(stage.left_over() == [info.pid], f"only the daemon should run, but there are PIDs {stage.left_over()}")
    stage.say("Settings are kept with the queue and effective at once. These two make the demo short:")
    stage.type("queuectl config set backoff_base 1   # retries wait 1 s, not 2 s, 4 s, 8 s")
    stage.type("queuectl config set kill_grace 1     # second from SIGTERM to SIGKILL")
    values = {setting.key: setting.value for setting in stage.client.settings()}
    expect(values["backoff_base"] == 1, f"backoff_base should be 1, but is {values['backoff_base']}")
    expect(values["kill_grace"] == 1, f"kill_grace should be 1, but is {values['kill_grace']}")
    stage.proven(f"A private daemon, PID {info.pid}, answers and has taken two settings.")


def compress_files(stage: Stage) -> None:
    sources = _sources()
    archives = stage.directory / "archives"
    archives.mkdir()
    jobs = [_compression(source, archives) for source in sources]
    (stage.directory / "jobs.jsonl").write_text("".join(f"{json.dumps(job)}\n" for job in jobs))
    size = sum(source.stat().st_size for source in sources)
    stage.scene(
        "Real work",
        f"{FILES} files of this Python's own library, {_megabytes(size)} in all, are to be compressed, each by a job"
        " of its own. One line of JSON is one job, and a whole file of them goes in at once:",
    )
    stage.type("head -n 1 jobs.jsonl")
    stage.type("queuectl enqueue --file jobs.jsonl > ids")
    ids = (stage.directory / "ids").read_text().split()
    expect(ids == [job["id"] for job in jobs], "the ids that `enqueue` printed are not those in the file, in order")
    stage.type("queuectl status")
    counts = stage.client.status().counts
    expect(
        counts[JobState.PENDING] == FILES, f"{FILES} jobs should be pending, but there are {counts[JobState.PENDING]}"
    )
    stage.say(
        "All of them are on disk, but nobody is there to run them. So three workers are started: processes that run one"
        " job at a time."
    )
    stage.type(f"queuectl worker start --count {WORKERS}")
    stage.type("queuectl wait $(cat ids) | cut -f 2 | sort | uniq -c")
    stage.wait_for(
        lambda: [worker.state for worker in stage.client.workers().workers] == [WorkerState.IDLE] * WORKERS,
        f"{WORKERS} idle workers",
    )
    stage.type("queuectl status")

    for job_id, source in zip(ids, sources, strict=True):
        stage.expect_job(job_id, "completed", attempts=1)
        _compare(archives / f"{source.name}.gz", source)
    small = sum(archive.stat().st_size for archive in archives.iterdir())
    stage.proven(
        f"{FILES} valid archives: unpacked, each equals its original. {_megabytes(size)} became {_megabytes(small)}."
    )


def trouble(stage: Stage) -> None:
    stage.scene(
        "Three jobs with trouble",
        "One needs a file that is not there. One takes too long. One fails at first, and would succeed if it were"
        " tried again. What comes after `--` runs without a shell, what comes after `-c` in one; both run here, in this"
        " directory, as if typed.",
    )
    stage.type("queuectl enqueue --id report --max-retries 2 -c 'wc -l orders.csv'")
    stage.type("queuectl enqueue --id slow --max-retries 1 --timeout 1s -- sleep 600")
    stage.type("queuectl enqueue --id flaky -c 'exit $((2 - QUEUECTL_ATTEMPT))'")
    stage.type("queuectl wait report slow flaky   # exits with 0 if all have completed", status=1)
    stage.type("queuectl list --state all --limit 5")
    stage.type("queuectl show flaky")

    flaky = stage.expect_job("flaky", "completed", attempts=2)
    expect(flaky.history and flaky.history[0].exit_code == 1, "the first attempt of flaky should have exit code 1")
    stage.proven("flaky failed once, was tried again by itself after a second, and completed.")
    report = stage.expect_job("report", "dead", attempts=2, exit_codes=(1,))
    expect(report.max_retries == 2, f"report should have at most 2 attempts, but has {report.max_retries}")
    stage.proven("report used up its two attempts, and is dead.")
    slow = stage.expect_job("slow", "dead", attempts=1, exit_codes=(128 + signal.SIGTERM, 128 + signal.SIGKILL))
    outcome = slow.history[0].outcome if slow.history else None
    expect(outcome == "timeout", f"the attempt of slow should have ended by timeout, but it is {outcome}")
    expect(not stage.tree("slow"), "slow has timed out, but its process still runs")
    stage.proven("slow was ended after its second, and is dead too.")


def dead_letters(stage: Stage) -> None:
    stage.scene(
        "The dead letter queue",
        "Dead jobs wait there for a person, with the reason. Each attempt has a log of its own.",
    )
    stage.type("queuectl dlq list")
    dead = sorted(job.id for job in stage.client.dlq())
    expect(dead == ["report", "slow"], f"report and slow should be in the dead letter queue, but it holds {dead}")
    stage.type("queuectl logs report")
    expect("orders.csv" in stage.output("report"), "the log of report does not name the file that is missing")
    stage.say("So that is missing. Here it comes, and the job gets another chance:")
    stage.type("printf '%s\\n' apples pears plums > orders.csv")
    stage.type("queuectl dlq retry report")
    stage.type("queuectl wait report")
    stage.type("queuectl logs report")
    stage.type("queuectl dlq list")

    report = stage.expect_job("report", "completed", attempts=3)
    expect(report.attempts == 1, f"a retried job starts counting anew, but report counts {report.attempts} attempts")
    said = stage.output("report")
    expect(said == "3 orders.csv\n", f"report should say `3 orders.csv`, but says {said!r}")
    stage.proven("The cause is fixed and report has completed; its two old attempts stay in its history.")


def cancel_tree(stage: Stage) -> None:
    (stage.directory / "stubborn.sh").write_text(STUBBORN)
    stage.scene("Cancel a job that will not go", "This one ignores SIGTERM, and a child of it tries to get away:")
    stage.type("cat stubborn.sh")
    stage.type("queuectl enqueue --id stubborn -- sh stubborn.sh")
    stage.wait_output("stubborn", "ready")
    stage.wait_for(
        lambda: len(tree := stage.tree("stubborn")) == 3 and len(set(map(session_of, tree))) == 2,
        "3 processes in 2 sessions to run",
    )
    tree = sorted(stage.tree("stubborn"))
    stage.say(f"It runs now: 3 processes in 2 sessions, PID {', '.join(map(str, tree))}. Somebody changes their mind:")
    stage.type("queuectl cancel stubborn")
    left = [pid for pid in tree if is_running(pid)]
    expect(not left, f"stubborn is cancelled, but its processes {left} still run")
    expect(not stage.tree("stubborn"), f"stubborn is cancelled, but processes {stage.tree('stubborn')} of it run")
    stage.expect_job("stubborn", "cancelled", attempts=1, exit_codes=(128 + signal.SIGKILL,))
    stage.proven("stubborn was cancelled: when the command returned, all 3 processes were gone.")


def kill_daemon(stage: Stage) -> None:
    stage.scene(
        "Kill the daemon",
        "Two jobs wait for a word that comes through a pipe; the first then exits with 42. Meanwhile the daemon is"
        " killed, not stopped: SIGKILL, as the kernel does it when memory runs out.",
    )
    stage.type("mkfifo pipe1 pipe2 pipe3")
    stage.type("queuectl enqueue --id early --max-retries 1 -c 'read word < pipe1; exit 42'")
    stage.type("queuectl enqueue --id late -c 'read word < pipe2; echo I noticed $word'")
    stage.wait_main_process("early")
    late = stage.wait_main_process("late")
    before = stage.client.info().pid
    stage.type(f"kill -9 {before}")
    stage.wait_for(lambda: not is_running(before), "the daemon to be gone")
    stage.type("queuectl status", status=3)
    stage.say("Nobody is there. The first job ends now, and there is no daemon to hear its exit code:")
    stage.type("echo go > pipe1")
    stage.wait_for(lambda: not stage.tree("early"), "job early to end")
    expect(is_running(late), "the daemon was killed, and job late went with it")
    stage.type(DAEMON)
    after = stage.client.info().pid
    expect(after != before, "a new daemon should have another PID")
    stage.type("queuectl wait early", status=1)
    stage.type("queuectl show early")
    stage.expect_job("early", "dead", attempts=1, exit_codes=(42,))
    stage.proven("early ended while no daemon ran, and its exit code, 42, is known all the same.")
    expect(is_running(late), "job late did not survive the start of a new daemon")
    stage.type("echo nothing > pipe2")
    stage.type("queuectl wait late")
    stage.type("queuectl logs late")
    job = stage.expect_job("late", "completed", attempts=1)
    said = stage.output("late")
    expect(said == "I noticed nothing\n", f"late should say `I noticed nothing`, but says {said!r}")
    expect(job.attempts == 1, f"late should have run once, but counts {job.attempts} attempts")
    stage.proven("late ran through it all: one attempt, one process, two daemons.")


def stop_gracefully(stage: Stage) -> Totals:
    stage.scene(
        "Stop without breaking anything",
        "One more job runs. The workers are told to stop: they take nothing new, and finish what they have.",
    )
    stage.type("queuectl enqueue --id last -c 'read word < pipe3; echo done in $word'")
    stage.wait_main_process("last")
    stage.type("queuectl worker stop")
    stage.wait_for(lambda: len(stage.client.workers().workers) == 1, "the idle workers to go")
    stage.type("queuectl worker list")
    [worker] = stage.client.workers().workers
    expect(worker.state == WorkerState.STOPPING, f"the worker that is left should be stopping, but is {worker.state}")
    expect(worker.job == "last" and stage.tree("last"), "the workers were stopped, and job last with them")
    stage.type("echo peace > pipe3")
    stage.type("queuectl wait last")
    stage.type("queuectl logs last")
    stage.expect_job("last", "completed", attempts=1)
    stage.wait_for(lambda: not stage.client.workers().workers, "the last worker to go")
    stage.proven("The workers were stopped, and the job that was running could finish.")

    stage.type("queuectl status")
    totals = _count(stage)
    stage.client.close()
    stage.type("queuectl daemon stop")
    stage.wait_for(lambda: not stage.left_over(), "every process to be gone after the daemon")
    stage.proven("Daemon, workers, jobs: no process is left.")
    return totals


def _count(stage: Stage) -> Totals:
    jobs = [stage.client.get(job.id) for job in stage.client.list()]
    states = Counter(str(job.state) for job in jobs)
    planned = {"completed": FILES + 4, "dead": 2, "cancelled": 1}
    expect(states == planned, f"in the end there should be {planned}, but there are {dict(states)}")
    return Totals(len(jobs), sum(len(job.history) for job in jobs if job.history is not UNSET))


def _sources() -> list[Path]:
    """The largest modules of the standard library: real files that are on every machine with a Python."""
    library = Path(sysconfig.get_path("stdlib"))
    found = sorted(library.glob("*.py"), key=lambda path: (-path.stat().st_size, path.name))[:FILES]
    expect(len(found) == FILES, f"{library} should have {FILES} files of Python, but has {len(found)}")
    return found


def _compression(source: Path, archives: Path) -> dict[str, str]:
    """A job in JSON: it runs exactly as it says, so all it needs is in it."""
    tool = f"{shlex.quote(found)} -9" if (found := shutil.which("gzip")) else f"{shlex.quote(sys.executable)} -m gzip -"
    command = f"{tool} < {shlex.quote(str(source))} > {shlex.quote(source.name)}.gz"
    return {"id": f"gzip-{source.stem}", "queue": "archive", "cwd": str(archives), "command": command}


def _compare(archive: Path, source: Path) -> None:
    try:
        content = gzip.decompress(archive.read_bytes())
    except (OSError, EOFError) as error:
        expect(False, f"{archive.name} is no valid archive: {error}")
    else:
        expect(content == source.read_bytes(), f"{archive.name}, unpacked, is not what {source} is")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
