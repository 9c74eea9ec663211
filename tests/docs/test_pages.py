"""README.md and docs/ tell the truth: their examples are run, their tables and their diagram are held against the code.

`console` and `python` blocks are run in the order of the page, by one shell against one daemon. That daemon is
started by the examples of README.md, which are run first for each page. `json` blocks are jobs. `sh` blocks can't be
run in a test (systemctl, sudo), so their commands are only parsed, as are those in the text.
"""

from __future__ import annotations

import functools
import re
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import msgspec
import pytest

from queuectl_client.cli import COMMANDS, cli
from queuectl_client.errors import NoDaemon
from queuectl_client.render.output import DONE, INTERRUPTED, REFUSED, USAGE
from queuectl_client.system.units import UNITS
from queuectl_protocol.jobs import JobSpec
from queuectld.cli import command as queuectld
from queuectld.core.lifecycle import TRANSITIONS
from queuectld.core.settings import DEFINITIONS
from tests.docs.page import Block, Example, agrees, anchors, examples, names, read_blocks, table_after
from tests.docs.shell import Shell
from tests.harness import PATIENCE, ROOT, wait_for

pytestmark = pytest.mark.timeout(300)  # the first test of a page waits for its whole tour

README, DOCS = ROOT / "README.md", ROOT / "docs"
# Those that are made from code and measurements have tests of their own.
PAGES = [
    README,
    *sorted(set(DOCS.glob("*.md")) - {DOCS / f"{name}.md" for name in ("benchmarks", "performance", "protocol")}),
]
BLOCKS = [block for page in PAGES for block in read_blocks(page)]
RUN = [block for block in BLOCKS if block.language in {"console", "python"}]

# A page shows a daemon at work as if it needed no time: what only looks is asked again until it sees what is shown.
LOOKS = re.compile(r"queuectl (status|list|show|logs|worker list|dlq list)\b(?!.*queuectl)|.*status\.get", re.DOTALL)
TOOLS = ("jq", "socat")


def id_of(block: Block) -> str:
    return f"{block.page.stem}-line-{block.line}"


# --- the examples ---------------------------------------------------------------------------------------------------


class Tour:
    """Every block of a page that can be run, run, where README.md has led to.

    Attributes:
        faults: of a block: what it printed otherwise than the page says.
        skipped: of a block: the tool that is not there.
        left: command lines of processes that were left behind.
    """

    def __init__(self, shell: Shell, agrees: Callable[[str, str], bool]) -> None:
        """`agrees` tells whether the page (the first text) shows what was printed (the second)."""
        self._shell = shell
        self._agrees = agrees
        self._names: dict[str, str] = {}  # an id as the page shows it: what it is today
        self.faults: dict[Block, list[str]] = {}
        self.skipped: dict[Block, str] = {}
        self.left: list[str] = []

    def go(self, page: Path) -> None:
        for block in (block for block in RUN if block.page in {README, page}):
            missing = [tool for tool in TOOLS if re.search(rf"\b{tool}\b", block.text) and shutil.which(tool) is None]
            if missing:
                self.skipped[block] = missing[0]
            elif block.language == "python":
                self.faults[block] = self._run_python(block)
            else:
                self.faults[block] = [fault for example in examples(block) if (fault := self._run(example))]
        self._shell.run("queuectl daemon stop", PATIENCE)

    def _run(self, example: Example) -> str:
        seen = ""
        command = example.command
        for name in names(command):
            command = command.replace(name, self._names[name])

        def look() -> bool:
            nonlocal seen
            seen = self._shell.run(command, PATIENCE)
            return self._agrees(example.expected, seen)

        if LOOKS.match(example.command):
            try:
                wait_for(look, "it", patience=20)
            except AssertionError:
                return _difference(example, seen)
        elif not look():
            return _difference(example, seen)
        if len(names(example.expected)) == len(names(seen)):
            self._names.update(zip(names(example.expected), names(seen), strict=True))
        return ""

    def _run_python(self, block: Block) -> list[str]:
        """A program whose `print(...)  # text` prints that text."""
        expected = "".join(f"{text}\n" for text in re.findall(r"print\(.*\)  # (.*)", block.text))
        assert expected, "a Python example that shows nothing"
        seen = self._shell.python(block.text, PATIENCE)
        return [] if agrees(expected, seen) else [_difference(Example(block.line, "python", expected), seen)]


def _difference(example: Example, seen: str) -> str:
    return f"line {example.line}: $ {example.command}\n--- the page\n{example.expected}--- today\n{seen}"


def agrees_on_terminal(expected: str, actual: str) -> bool:
    """A table has blanks there where it has a `-` in a pipe."""
    return agrees(re.sub(r"(?m)(?<=  )-(?=  |$)", " ", expected), re.sub(r"(?m) +$", "", actual))


@functools.cache
def tour_of(page: Path, streams: str) -> Tour:
    with tempfile.TemporaryDirectory(prefix="qctl-", ignore_cleanup_errors=True) as directory:
        shell = Shell(Path(directory), on_terminal=streams == "terminal")
        tour = Tour(shell, agrees_on_terminal if streams == "terminal" else agrees)
        try:
            tour.go(page)
        finally:
            shell.close()
            tour.left = shell.left()
            shell.clean_up()
        return tour


on_both = pytest.mark.parametrize("streams", ["pipe", "terminal"])


@on_both
@pytest.mark.parametrize("block", RUN, ids=id_of)
def test_examples_print_what_the_page_shows(block: Block, streams: str) -> None:
    tour = tour_of(block.page, streams)
    if block in tour.skipped:
        pytest.skip(f"{tour.skipped[block]} is not installed")
    assert not tour.faults[block], "\n".join(tour.faults[block])


@on_both
@pytest.mark.parametrize("page", dict.fromkeys(block.page for block in RUN), ids=lambda page: page.stem)
def test_the_examples_leave_nothing_running(page: Path, streams: str) -> None:
    assert not tour_of(page, streams).left


@pytest.mark.parametrize(
    "page", dict.fromkeys(block.page for block in RUN if block.page != README), ids=lambda page: page.stem
)
def test_a_page_says_where_its_examples_begin(page: Path) -> None:
    first = min(block.line for block in RUN if block.page == page)
    assert "[quick start](../README.md#quick-start)" in "\n".join(page.read_text().splitlines()[:first])


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "json"], ids=id_of)
def test_jobs_in_json_are_jobs(block: Block) -> None:
    spec = msgspec.json.decode(block.text, type=JobSpec)
    assert spec != JobSpec(command=spec.command, argv=spec.argv), "an example that shows no field"


@pytest.mark.parametrize(
    ("expected", "actual", "same"),
    [
        ("now  w4a2bb4  27695\n", "3 s ago  wffffff  1\n", True),
        ("ec5r3asx22gd\n", "aaaaaaaaaaaa\n", True),
        ("TOOK  0.25 s\n", "TOOK  2 m 5 s\n", True),
        ("a\n...\nz\n", "a\nb\nc\nz\n", True),
        ("a\n...\nz\n", "a\nz\n", True),
        ("n  ...\n", "n  12\n", True),
        ("n  ...\n", "n  12\nm  13\n", False),
        ("jobs  1\n", "jobs  2\n", False),
        ("job1\n", "job1\njob2\n", False),
        ("job1  completed\n", "job1  dead\n", False),
        ("job1\n", "", False),
    ],
)
def test_output_is_compared_by_what_matters(expected: str, actual: str, same: bool) -> None:
    assert agrees(expected, actual) is same


# --- commands that are not run --------------------------------------------------------------------------------------

NOT_OURS = {
    "cd", "eval", "export", "git", "journalctl", "ln", "loginctl", "mkdir", "pip", "python3", "sudo", "usermod",
    ".ci/run",
}  # fmt: skip


def _leaves(group: click.Group, path: str = "") -> Iterator[str]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from _leaves(command, f"{path}{name} ")
        else:
            yield f"{path}{name}"


def _parse(group: click.Command, name: str, words: list[str], parent: click.Context | None = None) -> None:
    """As click does before it calls anything.

    Raises:
        click.UsageError: there is no such command or option.
    """
    context = group.make_context(name, words, parent=parent)
    if isinstance(group, click.Group):
        found_name, found, rest = group.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None
        assert found_name is not None
        _parse(found, found_name, rest, context)


def _shell_commands(block: Block) -> Iterator[list[str]]:
    for line in block.text.replace("\\\n", " ").splitlines():
        for part in re.split(r"&&|[|;>]|\$\(", line.partition("  #")[0]):
            words = shlex.split(part.replace('"', " ").replace(")", " "), comments=True)
            while words and (words[0] in {"sudo", "eval"}):
                words.pop(0)
            if words:
                yield words


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "sh"], ids=id_of)
def test_commands_that_are_not_run_exist(block: Block) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    seen = 0
    for program, *words in _shell_commands(block):
        seen += 1
        match Path(program).name:
            case "queuectl":
                _parse(cli, "queuectl", words)
            case "queuectld":
                _parse(queuectld, "queuectld", words)
            case "make":
                assert words[0] in targets
            case "systemctl":
                units = [word for word in words if "queuectl" in word]
                assert set(units) <= set(UNITS)
            case name:
                assert program.startswith(("/", "~")) or program in NOT_OURS, f"{name} is no command that is known here"
                if program.startswith(".ci"):
                    assert (ROOT / program).is_file()
    assert seen


_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def _commands_in_text(page: Path) -> Iterator[str]:
    """What begins with `queuectl` and a command, in code within the text and in tables."""
    for code in re.findall(r"`([^`]+)`", _FENCED.sub("", page.read_text())):
        line = re.sub(r"""'[^']*'|"[^"]*\$\([^"]*\"""", "1", " ".join(code.split()).replace("\\|", "|"))
        yield from re.findall(r"\bqueuectl ((?:--\S+ \S+ )?[a-z][^|;&]*)", line)


@pytest.mark.parametrize(
    ("page", "command"), [(page, command) for page in PAGES for command in dict.fromkeys(_commands_in_text(page))]
)
def test_commands_in_the_text_exist(page: Path, command: str) -> None:
    if command not in COMMANDS:  # a sentence may name a command without what it needs
        _parse(cli, "queuectl", shlex.split(command))


@pytest.mark.parametrize("words", [["enqueue", "--prio", "1"], ["worker", "begin"], ["frobnicate"]])
def test_commands_that_do_not_exist_are_noticed(words: list[str]) -> None:
    with pytest.raises(click.UsageError):
        _parse(cli, "queuectl", words)


@pytest.mark.parametrize("leaf", [*_leaves(cli)])
def test_every_command_has_an_example(leaf: str) -> None:
    shown = [example.command for block in BLOCKS if block.language == "console" for example in examples(block)]
    shown += [" ".join(words) for block in BLOCKS if block.language == "sh" for words in _shell_commands(block)]
    assert any(re.search(rf"\bqueuectl (--\S+ \S+ )?{leaf}\b", command) for command in shown)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_section(name: str) -> None:
    assert f"\n## {name}\n" in (DOCS / "commands.md").read_text()
    assert f"\n| [{name}](docs/commands.md#{name}) | " in README.read_text()


# --- tables and the diagram -----------------------------------------------------------------------------------------


def test_the_diagram_is_the_table_of_transitions() -> None:
    ends = set(TRANSITIONS.values()) - {before for before, _ in TRANSITIONS}
    [diagram] = [block for block in BLOCKS if block.text.startswith("stateDiagram-v2\n")]
    assert diagram.language == "mermaid"
    assert diagram.text.splitlines() == [
        "stateDiagram-v2",
        *(f"    {before or '[*]'} --> {after}: {event}" for (before, event), after in TRANSITIONS.items()),
        *(f"    {state} --> [*]" for state in sorted(ends)),
    ]


def test_the_table_of_settings_is_the_code() -> None:
    assert table_after(DOCS / "settings.md", "| key | default | range | meaning |") == [
        f"| `{key}` | {_figure(row.default)} | {_figure(row.low)} to {_figure(row.high)} | {row.description} |"
        for key, row in DEFINITIONS.items()
    ]


def test_the_table_of_the_daemons_options_is_the_code() -> None:
    rows = table_after(DOCS / "settings.md", "| flag | variable | key | default |")
    told = [tuple(cell.strip() for cell in row.split("|")[1:4]) for row in rows]
    options = [option for option in queuectld.params if isinstance(option, click.Option) and option.allow_from_autoenv]
    assert set(told) == {
        (
            f"`{option.opts[0]}`",
            f"`QUEUECTL_{str(option.name).upper()}`",
            f"`{option.name}`" if option.name != "config" else "",
        )
        for option in options
    }
    assert len(told) == len(options)


def _figure(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.15g}"


def test_the_table_of_exit_statuses_is_the_code() -> None:
    told = [int(row.split("|")[1]) for row in table_after(DOCS / "commands.md", "| status | meaning |")]
    assert told == [DONE, REFUSED, USAGE, NoDaemon.exit_status, INTERRUPTED]


def test_the_table_of_fields_is_the_code() -> None:
    told = [
        tuple(cell.strip() for cell in row.split("|")[1:3])
        for row in table_after(DOCS / "jobs.md", "| field | default | meaning |")
    ]
    assert [name for name, _ in told] == [f"`{field.name}`" for field in msgspec.structs.fields(JobSpec)]
    for field, (_, default) in zip(msgspec.structs.fields(JobSpec), told, strict=True):
        if field.default is not None:  # those that are None are told in words
            assert default == f"`{msgspec.json.encode(field.default).decode()}`", field.name


LINKING = [README, ROOT / "SECURITY.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", _FENCED.sub("", page.read_text())):
        path, _, anchor = link.partition("#")
        if not path.startswith("https://"):
            target = page.parent / path if path else page
            assert target.is_file(), link
            assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_the_readme_leads_to_every_page(page: Path) -> None:
    assert f"](docs/{page.name})" in README.read_text()
