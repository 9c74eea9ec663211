"""The direct way reads a command line as click does, or not at all; and writes and reads JSON as msgspec does."""

from __future__ import annotations

import json
import os
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec
import platformdirs
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from queuectl_client.cli import cli
from queuectl_client.commandline.program import PROGRAM
from queuectl_client.direct import parse as direct
from queuectl_client.direct.parse import parse
from queuectl_client.direct.run import with_times
from queuectl_client.jobs import new_ids
from queuectl_client.jobs.options import Option
from queuectl_client.wire import plain
from queuectl_protocol import framing, paths
from queuectl_protocol.jobs import Job, JobState
from queuectl_protocol.messages import METHODS, JobPage
from queuectl_protocol.version import PROTOCOL, __version__


def by_click(arguments: list[str]) -> tuple[str, str | None, dict[str, Any], list[str] | None]:
    """The command, what `--socket` said, the values, and what came after `--`."""
    root = cli.make_context("queuectl", list(arguments))
    name, command, rest = cli.resolve_command(root, [*root._protected_args, *root.args])
    assert name is not None
    assert command is not None
    with root:
        context = command.make_context(name, rest, parent=root)
    socket = root.params["socket"]
    return name, None if socket is None else str(socket), context.params, context.meta.get(PROGRAM)


TEXTS = st.one_of(
    st.sampled_from(
        ["", "x", "-1", "5", "1_0", "٣", " 7 ", "5m", "1.5h", ".5", "-", "--", "all", "dead", "K=V", "--json"]
    ),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5),
)
RIGHT = {
    "integer": st.integers(-(10**7), 10**7).map(str),
    "time": st.sampled_from(["90", "90s", "1.5h", "500 ms", "2d", ".5m"]),
    "choice": st.sampled_from(["pending", "dead", "all"]),
}


@st.composite
def options_of(draw: st.DrawFn, table: tuple[Option, ...]) -> list[str]:
    """An option as it may be typed, with a right or a wrong value."""
    option = draw(st.sampled_from(table))
    flag = draw(st.sampled_from(option.flags))
    if option.kind in {"flag", "period"} and draw(st.integers(0, 5)):
        return [flag]
    value = draw(RIGHT.get(option.kind, TEXTS) if draw(st.integers(0, 3)) else TEXTS)
    return draw(st.sampled_from([[flag, value], [flag, value], [f"{flag}={value}"], [flag + value]]))


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    name = draw(st.sampled_from([*direct._OPTIONS]))
    table = direct._OPTIONS[name]
    words: list[str] = draw(st.sampled_from([[], [], ["--socket", "q.sock"], ["--socket=/q"], ["--socket", "."]]))
    words = [*words, name]
    for _ in range(draw(st.integers(0, 4))):
        kind = draw(st.integers(0, 7))
        if kind < 5:
            words += draw(options_of(table))
        elif kind == 5 or name in {"wait", "cancel"}:
            words.append(draw(TEXTS))
        else:
            words += draw(st.sampled_from([["--help"], ["-h"], ["--nope"], ["--js"], ["--queu", "x"], ["-x"]]))
    if name in {"wait", "cancel"} and draw(st.booleans()):
        words.append("job1")
    if draw(st.booleans()):
        words += ["--", *draw(st.lists(TEXTS, max_size=3))]
    return words


@settings(max_examples=500)
@given(command_lines())
def test_what_the_direct_way_accepts_click_reads_as_the_same(arguments: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: True)  # whether a socket is there is not what is tested
        call = parse(arguments)
    event("accepted" if call is not None else "left to click")
    if call is not None:
        name, socket, values, program = by_click(arguments)
        assert (call.command, call.program) == (name, program)
        assert (None if call.socket is None else paths.spelled(call.socket)) == socket
        words = values.pop("words", ())
        assert (call.values, ()) == (values, words)
        assert [type(value) for value in call.values.values()] == [type(values[name]) for name in call.values]


@pytest.mark.parametrize(
    "arguments",
    [
        ["enqueue", "--", "true"],
        ["enqueue", "--queue", "q", "--priority=-5", "--timeout", "5m", "--env", "A=1", "--env", "B=2", "-c", "x y"],
        ["enqueue", "--json", "--clean-env", "--", "ls", "--", "-l", "--help"],
        ["status"],
        ["status", "--json"],
        ["wait", "job1", "--timeout", "1.5h", "job2"],
        ["list", "--state", "all", "--limit", "10", "--queue", "q"],
        ["cancel", "--no-wait", "job1"],
    ],
)
def test_what_people_call_in_loops_goes_the_direct_way(arguments: list[str]) -> None:
    call = parse(arguments)
    assert call is not None
    name, socket, values, program = by_click(arguments)
    values.pop("words", None)
    assert (call.command, call.socket, call.values, call.program) == (name, socket, values, program)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--help"],
        ["--version"],
        ["nope"],
        ["enqueue", "--help"],
        ["enqueue", "-cx"],
        ["enqueue", "word", "--", "x"],
        ["enqueue", "--priority", "x", "--", "true"],
        ["enqueue", "--queue"],
        ["--socket"],
        ["--socket", "", "status"],
        ["status", "--watch"],
        ["status", "extra"],
        ["wait"],
        ["wait", "--", "job1"],
        ["list", "--limit", "-1"],
        ["list", "--state", "gone"],
        ["cancel", "--no-wait"],
        ["show", "job1"],
    ],
)
def test_everything_else_is_left_to_click(arguments: list[str]) -> None:
    assert parse(arguments) is None


def test_the_direct_way_asks_only_what_may_be_asked_again() -> None:
    for method in ("job.enqueue", "status.get", "worker.list", "job.wait", "job.cancel", "job.list"):
        assert METHODS[method].repeatable


VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**53), 2**53),
        st.floats(0.001, 1e15),
        st.text(st.characters(exclude_categories=["Cs"])),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
)


@given(VALUES)
def test_json_is_written_as_msgspec_writes_it(value: object) -> None:
    assert plain.encode(value) == msgspec.json.encode(value).decode()


@given(VALUES)
def test_a_reply_is_read_as_it_was_written(value: object) -> None:
    line = framing.encode_result(7, {"value": value}).rstrip(b"\n")
    reply = plain.decode_reply(line)
    assert reply.id == 7
    assert plain.result_of(reply) == {"value": json.loads(msgspec.json.encode(value))}


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"nope",
        b"[]",
        b"{}",
        b'{"jsonrpc":"2.0","error":5}',
        b'{"jsonrpc":"2.0"} x',
        b'"\xff"',
        b"[" * 99_999,
    ],
)
def test_what_is_no_reply_is_left_to_the_structs(line: bytes) -> None:
    with pytest.raises(plain.UnclearError):
        plain.decode_reply(line)


def test_an_answer_of_another_version_is_left_to_the_structs() -> None:
    hello = {"protocol": PROTOCOL, "version": __version__, "pid": 1, "started_at": "x", "generation": 0}
    same, other = (
        plain.decode_reply(framing.encode_result(1, hello | more).rstrip(b"\n")) for more in ({}, {"version": "9.9"})
    )
    assert plain.read_hello(same) == (PROTOCOL, __version__, 1, "x", 0)
    with pytest.raises(plain.UnclearError):
        plain.read_hello(other)


def test_a_job_reads_the_same_with_and_without_structs() -> None:
    moment = datetime(2025, 1, 31, 14, 3, 22, 5, tzinfo=UTC)
    made = Job(
        id="a", queue="q", state=JobState.DEAD, command="é\x1b", priority=-3, attempts=1, max_retries=3, timeout=0.25,
        run_at=moment, created_at=moment, updated_at=moment,
    )  # fmt: skip
    text = msgspec.json.encode(JobPage(jobs=[made], next=None))
    page = plain.result_of(plain.decode_reply(b'{"jsonrpc":"2.0","id":1,"result":' + text + b"}"))
    assert plain.encode(page.jobs[0]).encode() == msgspec.json.encode(made)
    job = with_times(page.jobs)[0]
    assert (job.run_at, job.state, job.timeout, job.argv) == (moment, JobState.DEAD, 0.25, None)


def test_an_id_that_is_put_back_is_the_next_one() -> None:
    made = new_ids.make()
    new_ids.put_back(made)
    assert new_ids.make() == made


@given(st.text(st.sampled_from("/.ab"), max_size=8).filter(bool))
def test_paths_are_spelled_as_pathlib_spells_them(path: str) -> None:
    assert paths.spelled(path) == str(Path(path))


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o777])
@pytest.mark.parametrize("form", ["{}", "{}/", "{}/.", "{}/../{}", "link", ""])
def test_the_users_socket_is_where_platformdirs_says(
    directory: Path, monkeypatch: pytest.MonkeyPatch, mode: int, form: str
) -> None:
    runtime = directory / "run"
    runtime.mkdir()
    runtime.chmod(mode)
    (directory / "link").symlink_to(runtime)
    given = str(directory / "link") if form == "link" else form.format(runtime, "run")
    monkeypatch.setenv("XDG_RUNTIME_DIR", given)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = Path(platformdirs.user_runtime_dir("queuectl")) / "queuectl.sock"
    assert paths.user_socket(os.environ) == str(expected)


def test_click_is_not_what_reads_the_table_wrongly() -> None:
    """Each option of the tables is one of click's, of the same name and flags."""
    for name, table in direct._OPTIONS.items():
        context = click.Context(cli)
        command = cli.get_command(context, name)
        assert command is not None
        known = {param.name: param for param in command.params if isinstance(param, click.Option)}
        assert {option.name: set(option.flags) for option in table} == {
            key: set(param.opts) for key, param in known.items()
        }
