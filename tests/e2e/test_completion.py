"""Completion in real shells, as `queuectl completion install` sets it up: what is typed, and what Tab makes of it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.client import Terminal, shell_environment
from tests.harness import PATIENCE, Daemon, lines_of, wait_for

SHELLS = [
    pytest.param(name, marks=pytest.mark.skipif(shutil.which(name) is None, reason=f"{name} is not installed"))
    for name in ("bash", "zsh", "fish")
]
FILES = {
    "bash": [".local/share/bash-completion/completions/queuectl", ".bashrc", ".profile"],
    "zsh": [".local/share/zsh/site-functions/_queuectl", ".zshrc"],
    "fish": [".config/fish/completions/queuectl.fish"],
}
DEBIANS_PROFILE = """\
if [ -n "$BASH_VERSION" ]; then
    if [ -f "$HOME/.bashrc" ]; then
        . "$HOME/.bashrc"
    fi
fi
if [ -d "$HOME/.local/bin" ] ; then
    PATH="$HOME/.local/bin:$PATH"
fi
"""


def environment_of(directory: Path, shell: str, daemon: Daemon | None = None) -> dict[str, str]:
    """Of a person whose home is `home` below the directory, and who uses this shell."""
    (directory / "home").mkdir(exist_ok=True)
    return {**shell_environment(directory, daemon), "HOME": str(directory / "home"), "SHELL": f"/usr/bin/{shell}"}


def install(environment: dict[str, str], *words: str) -> list[str]:
    done = subprocess.run(
        ["queuectl", "completion", "install", *words],
        env=environment, capture_output=True, text=True, check=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.splitlines()


def contents(home: Path) -> dict[str, str]:
    return {str(path.relative_to(home)): path.read_text() for path in home.rglob("*") if path.is_file()}


class Typist:
    """Types lines into a shell, and looks what became of them."""

    def __init__(self, terminal: Terminal, called: Path) -> None:
        self._terminal = terminal
        self._called = called

    def completes(self, line: str) -> str:
        """The line as it was executed after Tab."""
        before = len(lines_of(self._called))
        self._terminal.send(f"{line}\t\r")
        self._terminal.read_until(lambda _: lines_of(self._called)[before:], f"the prompt after {line!r}")
        return lines_of(self._called)[before].rstrip("/")  # that of a directory, some shells take away again

    def expect(self, line: str, expected: str) -> None:
        # A shell that is not ready yet takes Tab for a letter, and a daemon that is busy offers nothing: type it again.
        seen = ""

        def look() -> bool:
            nonlocal seen
            seen = self.completes(line)
            return seen == expected

        try:
            wait_for(look, expected, patience=30)
        except AssertionError:
            raise AssertionError(f"{line!r}, Tab: {seen!r}, not {expected!r}: {self._terminal.output!r}") from None


@contextmanager
def typing(shell: str, environment: dict[str, str], directory: Path) -> Iterator[Typist]:
    """A login shell in which `queuectl` is the real one while it completes, and else says how it was called."""
    called = directory / "called"
    program = directory / "bin" / "queuectl"
    real = program.with_name("real-queuectl")
    program.rename(real)
    program.write_text(
        f'#!/bin/sh\n[ "$_QUEUECTL_COMPLETE" ] && exec {real}\nIFS="|"; printf "%s\\n" "$*" >>{called}\n'
    )
    program.chmod(0o755)
    with Terminal(["env", "-C", str(directory / "work"), shell, "-l"], environment, columns=200) as terminal:
        yield Typist(terminal, called)


@pytest.mark.parametrize("shell", SHELLS)
def test_tab_in_a_login_shell(shell: str, daemon: Daemon, directory: Path) -> None:
    daemon.enqueue("echo a, b", id="an-id", queue="night")
    environment = environment_of(directory, shell, daemon)
    # Where the README puts the program; /etc/profile begins the PATH anew.
    (directory / "home" / ".local").mkdir()
    (directory / "home" / ".local" / "bin").symlink_to(directory / "bin")
    (directory / "home" / ".profile").write_text(DEBIANS_PROFILE)
    install(environment)
    (directory / "work" / "some-dir").mkdir(parents=True)
    (directory / "work" / "some-file").touch()
    (directory / "bin" / "an-executable").symlink_to("/bin/true")
    with typing(shell, environment, directory) as typist:
        typist.expect("queuectl enqueue --prio", "enqueue|--priority")
        typist.expect("queuectl show an", "show|an-id")
        typist.expect("cd . && queuectl list --queue ni", "list|--queue|night")
        typist.expect("queuectl list --queue=ni", "list|--queue=night")
        typist.expect("queuectl enqueue --file some-f", "enqueue|--file|some-file")
        typist.expect("queuectl enqueue --cwd some-", "enqueue|--cwd|some-dir")
        typist.expect("queuectl backup some-f", "backup|some-file")
        typist.expect("queuectl enqueue --id x -- an-exec", "enqueue|--id|x|--|an-executable")
        typist.expect("queuectl run -- cat some-f", "run|--|cat|some-file")


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_offers_each_candidate_once(directory: Path) -> None:
    script = """
        source <(queuectl completion bash)
        _comp_command_offset() { COMPREPLY=(b 'a ]"' b a 'a ]"' '$x'); }
        COMP_LINE="queuectl run -- " COMP_POINT=16 COMP_WORDS=(queuectl run -- "") COMP_CWORD=3
        _queuectl queuectl
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        ["bash", "-c", script],
        env=shell_environment(directory), capture_output=True, text=True, check=True, timeout=PATIENCE,
    )  # fmt: skip
    assert (done.stdout.splitlines(), done.stderr) == (["b", 'a ]"', "a", "$x"], "")


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_shows_the_whole_description(daemon: Daemon, directory: Path) -> None:
    daemon.enqueue("echo a, b", id="an-id")
    environment = environment_of(directory, "fish", daemon)
    install(environment)

    def offered() -> str:
        command = ["fish", "-c", 'complete -C "queuectl show an"']
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    assert wait_for(offered, "an offer") == "an-id\tpending echo a, b\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_installing_twice_changes_nothing(shell: str, directory: Path) -> None:
    environment = environment_of(directory, shell)
    home = directory / "home"
    first = install(environment)
    assert [line for line in first if line.startswith("wrote ")] == [f"wrote {home}/{FILES[shell][0]}"]
    assert len([line for line in first if line.startswith("added to ")]) == len(FILES[shell]) - 1
    before = contents(home)
    assert sorted(before) == sorted(FILES[shell])
    second = install(environment, shell)
    assert not [line for line in second if line.startswith(("wrote ", "added "))]
    assert contents(home) == before


def test_what_is_in_the_shells_own_files_stays(directory: Path) -> None:
    environment = environment_of(directory, "bash")
    home = directory / "home"
    (home / ".profile").write_text(DEBIANS_PROFILE)
    (home / "dotfiles").write_bytes(b"alias l='ls \xff'")
    (home / ".bashrc").symlink_to("dotfiles")
    install(environment)
    assert (home / ".profile").read_text() == DEBIANS_PROFILE, "it reads .bashrc already"
    assert (home / ".bashrc").is_symlink()
    kept, begin, _ = (home / "dotfiles").read_bytes().partition(b"\n# >>> queuectl completion >>>\n")
    assert (kept, begin) != (b"", b"")
    assert kept == b"alias l='ls \xff'"
    moved = {**environment, "XDG_DATA_HOME": str(home / "data")}
    with (home / ".bashrc").open("ab") as file:
        file.write(b"# after\n")
    install(moved)
    text = (home / ".bashrc").read_bytes()
    assert text.count(b"# >>> queuectl completion >>>") == 1
    assert f"{home}/data/bash-completion".encode() in text
    assert text.endswith(b"# after\n")


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("gone", [False, True], ids=["off the PATH", "script removed"])
def test_a_login_without_the_program_prints_nothing(shell: str, gone: bool, directory: Path) -> None:
    environment = environment_of(directory, shell)
    (directory / "home" / ".profile").write_text(DEBIANS_PROFILE)
    install(environment)
    if gone:
        (directory / "home" / FILES[shell][0]).unlink()
    environment["PATH"] = "/usr/local/bin:/usr/bin:/bin"
    with Terminal([shell, "-l", "-i", "-c", "echo in"], environment) as terminal:
        assert terminal.finish() == 0
        assert terminal.output.strip() == "in"


def test_an_unknown_shell_is_asked_about(directory: Path) -> None:
    environment = environment_of(directory, "tcsh")
    done = subprocess.run(
        ["queuectl", "completion", "install"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("queuectl: say for which shell: bash, zsh, fish\n")


def test_a_file_that_can_not_be_written_is_named(directory: Path) -> None:
    environment = environment_of(directory, "bash")
    (directory / "home" / ".local").touch()
    done = subprocess.run(
        ["queuectl", "completion", "install"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"queuectl: can't write {directory}/home/.local")
