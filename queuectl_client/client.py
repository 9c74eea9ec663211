"""The blocking library that the commands, and other Python programs, use."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from msgspec import Struct

from queuectl_client.errors import BadRequest
from queuectl_client.jobs import specs
from queuectl_client.wire import typed
from queuectl_client.wire.link import PATIENCE, Link, time_left
from queuectl_client.wire.typed import result_of
from queuectl_protocol.jobs import Job, JobSpec, JobState
from queuectl_protocol.messages import (
    METHODS,
    BackupParams,
    BackupResult,
    ConfigKeyParams,
    ConfigListResult,
    ConfigSetParams,
    CountResult,
    DlqListParams,
    DlqPurgeParams,
    DlqRetryParams,
    EnqueueParams,
    JobGetParams,
    JobIdsParams,
    JobListParams,
    JobLogs,
    JobLogsParams,
    JobPage,
    JobSummaries,
    JobSummary,
    JobWaitParams,
    NoParams,
    ServerInfo,
    Setting,
    SettingValue,
    StatusResult,
    WorkerListResult,
    WorkerStartParams,
    WorkerStartResult,
    WorkerStopParams,
    WorkerStopResult,
)

if TYPE_CHECKING:
    from queuectl_client.wire.bulk import Enqueuing

PAGE = 200
"""Jobs asked for at once when going through a list."""


class Client:
    """A connection to queuectld, made at the first call, and made again when it was lost.

    Not safe for use by several threads; make one for each.

    Example:
        with Client() as client:
            job = client.enqueue(command="make test", timeout=600)
            [ended] = client.wait([job])
            print(ended.state, ended.exit_code)
            for piece in client.logs(job):
                print(piece.decode(errors="replace"), end="")

    Every method raises:
        ProtocolError: the daemon said no; `kind` is a stable word, `message` a sentence, `hint` what to do.
        NoDaemon: no daemon answers.
        WrongProtocol: the daemon speaks another version of the protocol.
        OutcomeUnknown: the connection was lost after a request that must not be sent twice (the requests that may be
            are sent again without a word).
        BadRequest: the request can't be sent.
    """

    def __init__(
        self, socket: str | Path | None = None, *, patience: float = PATIENCE, timeout: float | None = None
    ) -> None:
        """Nothing is opened yet.

        Args:
            socket: the daemon's socket. None: $QUEUECTL_SOCKET, else the user's own, else the system's.
            patience: seconds for which a lost connection is tried to be made again (a daemon may be restarting).
            timeout: seconds that any one answer may take. None: no limit, but 10 for the first.
        """
        self._link = Link(None if socket is None else str(socket), typed, patience=patience, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. The next call makes a new one."""
        self._link.close()

    @property
    def socket(self) -> Path | None:
        """The socket that was connected to last; None before the first call."""
        return None if self._link.socket is None else Path(self._link.socket)

    # --- calls ------------------------------------------------------------------------------------------------------

    def call(self, method: str, params: Struct | None = None) -> Any:
        """Ask for `method` and wait for the answer.

        Args:
            method: a key of `queuectl_protocol.messages.METHODS`.
            params: the struct that METHODS names for it; None where it takes nothing.

        Returns:
            The result struct that METHODS names for it.
        """
        return self._call(method, lambda: params or NoParams())

    def _call(self, method: str, make_params: Callable[[], Struct], *, patient: bool = False) -> Any:
        """As `call`.

        Args:
            method: as there.
            make_params: called whenever the request is sent, since a timeout in the parameters shrinks.
            patient: a daemon that is stopping may be on its way to come back; wait for it as for a lost connection.
        """
        row = METHODS[method]
        reply = self._link.ask(method, make_params, repeatable=row.repeatable, patient=patient)
        return result_of(reply, row.result or NoParams)

    # --- jobs -------------------------------------------------------------------------------------------------------

    def enqueue(
        self,
        *,
        command: str | None = None,
        argv: Sequence[str] | None = None,
        id: str | None = None,  # noqa: A002 - the field's name everywhere
        queue: str | None = None,
        priority: int | None = None,
        max_retries: int | None = None,
        timeout: float | None = None,
        delay: float | None = None,
        label: str | None = None,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        exact_env: bool = False,
        env_given: Sequence[str] | None = None,
    ) -> str:
        """Enqueue one job; it is on disk when this returns. The arguments are the fields of `JobSpec`.

        Args:
            command: run by `/bin/sh -c`; give this or `argv`.
            argv: executed as it is, without a shell.
            id: letters, digits, `.`, `_`, `-`; made where none is given.
            queue: the name of its queue; `default` if none is given.
            priority: higher runs first; 0 if none is given.
            max_retries: executions in all, the first included. None: the setting.
            timeout: seconds that an attempt may take, 0 is no limit. None: the setting `job_timeout`.
            delay: seconds before it may first run.
            label: a remark for people.
            cwd: an absolute path. None: the home of the daemon's user.
            env: variables, on top of a small clean base.
            exact_env: `env` is the whole environment.
            env_given: with `exact_env`, the variables of `env` that count when the same id is enqueued again.

        Returns:
            The job's id.

        Raises:
            BadRequest: a field can't be; the message names it.
        """
        fields = {
            "command": command,
            "argv": None if argv is None else list(argv),
            "id": id,
            "queue": queue,
            "priority": priority,
            "max_retries": max_retries,
            "timeout": timeout,
            "delay": delay,
            "label": label,
            "cwd": None if cwd is None else str(cwd),
            "env": None if env is None else dict(env),
            "exact_env": exact_env,
            "env_given": None if env_given is None else list(env_given),
        }
        return self.enqueue_spec(specs.from_fields(fields))

    def enqueue_spec(self, spec: JobSpec) -> str:
        """As `enqueue`, for a job that was made before."""
        return self.enqueue_all([spec])[0]

    def enqueue_all(self, jobs: Sequence[JobSpec]) -> list[str]:
        """Enqueue up to 10,000 jobs in one transaction, all or none.

        Returns:
            Their ids, in this order.
        """
        result = self.call("job.enqueue", EnqueueParams(jobs=[specs.with_id(job) for job in jobs]))
        ids: list[str] = result.ids
        return ids

    def enqueue_many(self, jobs: Iterable[JobSpec]) -> Sequence[str]:
        """Enqueue any number of jobs, as fast as the daemon takes them.

        They are sent in batches, each of which is enqueued wholly or not at all; after a batch that is refused, a few
        more may be enqueued. Whatever went wrong, the same jobs with the same ids can be sent again: a job that is
        there already is passed over.

        Returns:
            Their ids, in this order.
        """
        from queuectl_client.jobs.batches import batches  # noqa: PLC0415 - one job at a time does without

        return [job_id for ids in self.enqueue_batches(batches(jobs)) for job_id in ids]

    def enqueue_batches(self, source: Iterable[Sequence[JobSpec]]) -> Enqueuing:
        """Enqueue batches of jobs, a few of them on their way at once.

        Nothing is done before the answer is iterated over: it yields the ids of each batch that was acknowledged, in
        order. An empty batch says that the source may be silent for a while: all that was sent is then waited for.
        When the daemon refuses a batch, or the source raises, nothing more is sent; what was sent is waited for and
        yielded, and then the error is raised. The answer's attributes tell which batches were refused.
        """
        from queuectl_client.wire import bulk  # noqa: PLC0415 - one job at a time does without

        return bulk.Enqueuing(self._link, source)

    def get(self, job: str, *, env: bool = False, attempts_before: int | None = None) -> Job:
        """One job with its attempts.

        Args:
            job: its id, or a prefix that no other job's id has.
            env: include its environment.
            attempts_before: only attempts with a lower number. None: the newest. There are at most 1,000 in an answer.
        """
        found: Job = self.call("job.get", JobGetParams(id=job, env=env, attempts_before=attempts_before))
        return found

    def list(
        self, state: JobState | str | None = None, *, queue: str | None = None, limit: int | None = None
    ) -> Iterator[Job]:
        """Jobs, newest first, fetched a page at a time.

        Args:
            state: None is all states.
            queue: None is all queues.
            limit: None is no limit.
        """
        wanted = None if state is None else JobState(state)
        return self._pages(
            "job.list", lambda size, after: JobListParams(state=wanted, queue=queue, limit=size, after=after), limit
        )

    def dlq(self, *, queue: str | None = None, limit: int | None = None) -> Iterator[Job]:
        """Dead jobs, newest first; see `list`."""
        return self._pages("dlq.list", lambda size, after: DlqListParams(queue=queue, limit=size, after=after), limit)

    def _pages(self, method: str, params: Callable[[int, str | None], Struct], limit: int | None) -> Iterator[Job]:
        after: str | None = None
        while limit is None or limit > 0:
            page: JobPage = self.call(method, params(PAGE if limit is None else min(PAGE, limit), after))
            yield from page.jobs
            if page.next is None:
                return
            after = page.next
            if limit is not None:
                limit -= len(page.jobs)

    def cancel(self, jobs: Sequence[str], *, tolerant: bool = False) -> Sequence[JobSummary]:
        """Cancel jobs, all or none; a running one is `processing` until its processes have ended (see `wait`).

        With `tolerant`, those that have ended or are not there are passed over; then prefixes are not looked for.
        """
        return self._summaries("job.cancel", jobs, tolerant=tolerant)

    def retry(self, jobs: Sequence[str], *, tolerant: bool = False) -> Sequence[JobSummary]:
        """Run cancelled or dead jobs again, all or none; `tolerant` is as in `cancel`."""
        return self._summaries("job.retry", jobs, tolerant=tolerant)

    def _summaries(self, method: str, jobs: Sequence[str], *, tolerant: bool) -> Sequence[JobSummary]:
        result: JobSummaries = self.call(method, JobIdsParams(ids=_ids(jobs), tolerant=tolerant))
        return result.jobs

    def wait(self, jobs: Sequence[str], *, timeout: float | None = None) -> Sequence[JobSummary]:
        """Wait until all the jobs have ended.

        Args:
            jobs: ids or prefixes.
            timeout: seconds after which it returns whatever the states are. None: no limit.
        """
        ids = _ids(jobs)
        left = time_left(timeout)
        result: JobSummaries = self._call("job.wait", lambda: JobWaitParams(ids=ids, timeout=left()), patient=True)
        return result.jobs

    def logs(
        self, job: str, *, attempt: int | None = None, follow: bool = False, tail: int | None = None
    ) -> Iterator[bytes]:
        """An attempt's output, as it is.

        Args:
            job: its id, or a prefix that no other job's id has.
            attempt: None is the newest.
            follow: go on until the attempt has ended; one that has not begun is waited for.
            tail: only this many lines at the end of what is there.
        """
        for piece in self.log_pieces(job, attempt=attempt, follow=follow, tail=tail):
            yield output_of(piece)

    def log_pieces(
        self,
        job: str,
        *,
        attempt: int | None = None,
        offset: int = 0,
        follow: bool = False,
        tail: int | None = None,
        text: bool = False,
    ) -> Iterator[JobLogs]:
        """As `logs`, with what the daemon says about each piece; there is at least one.

        It begins `offset` bytes after the attempt's start. With `text`, the output comes as text, its bytes that are
        not UTF-8 replaced, else as base64.
        """
        params = JobLogsParams(id=job, attempt=attempt, offset=offset, tail=tail, follow=follow, base64=not text)
        while True:
            piece = self._log_piece(params)
            yield piece
            if piece.attempt is None or piece.end or (not follow and piece.next == piece.offset):
                return
            params = JobLogsParams(id=job, attempt=piece.attempt, offset=piece.next, follow=follow, base64=not text)

    def _log_piece(self, params: JobLogsParams) -> JobLogs:
        piece: JobLogs = self._call("job.logs", lambda: params, patient=params.follow)
        return piece

    # --- dead letter queue ------------------------------------------------------------------------------------------

    def dlq_retry(self, jobs: Sequence[str] | None = None) -> int:
        """Put dead jobs, or with None all of them, back to `pending` with no attempts used.

        Returns:
            How many.
        """
        params = DlqRetryParams(all=True) if jobs is None else DlqRetryParams(ids=_ids(jobs))
        result: CountResult = self.call("dlq.retry", params)
        return result.count

    def dlq_purge(self, jobs: Sequence[str] | None = None) -> int:
        """Delete dead jobs, or with None all of them, with their attempts and logs.

        Returns:
            How many.
        """
        params = DlqPurgeParams(all=True) if jobs is None else DlqPurgeParams(ids=_ids(jobs))
        result: CountResult = self.call("dlq.purge", params)
        return result.count

    # --- settings ---------------------------------------------------------------------------------------------------

    def settings(self) -> Sequence[Setting]:
        """All settings."""
        result: ConfigListResult = self.call("config.list")
        return result.settings

    def setting(self, key: str) -> Setting:
        """One setting."""
        found: Setting = self.call("config.get", ConfigKeyParams(key=key))
        return found

    def set_setting(self, key: str, value: SettingValue) -> Setting:
        """Change a setting, effective at once. A string is read as the setting's type."""
        found: Setting = self.call("config.set", ConfigSetParams(key=key, value=value))
        return found

    def unset_setting(self, key: str) -> Setting:
        """Give a setting its default back."""
        found: Setting = self.call("config.unset", ConfigKeyParams(key=key))
        return found

    # --- workers, the daemon ----------------------------------------------------------------------------------------

    def workers(self) -> WorkerListResult:
        """The workers, and how many there should be."""
        result: WorkerListResult = self.call("worker.list")
        return result

    def start_workers(self, count: int) -> WorkerStartResult:
        """Add workers to the pool."""
        result: WorkerStartResult = self.call("worker.start", WorkerStartParams(count=count))
        return result

    def stop_workers(self, ids: Sequence[str] | None = None, *, now: bool = False) -> WorkerStopResult:
        """Take workers, or with None all of them, out of the pool: after their current job, or `now`."""
        params = WorkerStopParams(ids=None if ids is None else _ids(ids), now=now)
        result: WorkerStopResult = self.call("worker.stop", params)
        return result

    def status(self) -> StatusResult:
        """Counts of all states, the workers, the daemon."""
        result: StatusResult = self.call("status.get")
        return result

    def backup(self, path: str | Path) -> BackupResult:
        """Have the daemon write a consistent copy of its database to a new file, at an absolute path of its machine."""
        result: BackupResult = self.call("server.backup", BackupParams(path=str(path)))
        return result

    def info(self) -> ServerInfo:
        """Who answers: version, protocol, PID, paths."""
        result: ServerInfo = self.call("server.info")
        return result


def _ids(ids: Sequence[str]) -> list[str]:
    """A list of them; a string is a sequence of strings too, and never meant so."""
    if isinstance(ids, str):
        raise BadRequest(f"a list of ids is expected, not the string {ids!r}", f"write [{ids!r}]")
    return [*ids]


def output_of(piece: JobLogs) -> bytes:
    """The output in a piece, as it is."""
    if piece.base64 is not None:
        return base64.b64decode(piece.base64)
    return (piece.text or "").encode()
