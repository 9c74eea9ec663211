"""The walk through README.md and docs/: each step types the lines of a section, and looks at what they did."""

from __future__ import annotations

import re
import time
from pathlib import Path

from tests.docs.page import agrees
from tests.fresh import pages
from tests.fresh.terminal import Terminal
from tests.systemd.machine import BOOT, REPOSITORY, Machine

LOOKS = re.compile(r"queuectl (status|list|show|logs|dlq list)\b")
"""What only looks is asked again until it shows what the page shows: a page needs no time."""
LOOK_PATIENCE = 20.0
_NEEDS_ROOT = re.compile(r"geteuid\(\) != 0|mark\.root")
CHECK_PATIENCE = 5400.0
SHELLS = ("bash", "zsh", "fish")
COMPLETIONS = {
    "enq": "enqueue ",
    "enqueue --prio": "enqueue --priority ",
    "show rep": "show report ",
    "enqueue --file num": "enqueue --file numbers.txt ",
    "enqueue -- cat num": "enqueue -- cat numbers.txt ",
}
"""What is typed before the TAB key, and what the line is after it."""


class Walk:
    """The user's way, a step a method.

    Args:
        machine: booted; the user's clone lies in his home.
        user: who types.
        log: everything that was shown.
    """

    def __init__(self, machine: Machine, user: str, log: Path) -> None:
        self._machine = machine
        self._user = user
        self._log = log

    def go(self, *, check: bool) -> None:
        """
        Raises:
            AssertionError: the first thing that is not as the page says.
        """
        steps = {
            "Install": self.install,
            "Quick start, after the next login": self.quick_start,
            "Completion": self.completion,
            "With systemd, for oneself": self.own_service,
            "With systemd, for the machine": self.service_of_the_machine,
        }
        if check:
            steps["All tests, as an ordinary user, in a home that others can't read"] = self.check
            steps["The tests that need root, in that same clone"] = self.check_as_root
        for title, step in steps.items():
            began = time.monotonic()
            print(f"\n== {title}", flush=True)
            step()
            print(f"   ({time.monotonic() - began:.0f} s)", flush=True)

    # --- the steps --------------------------------------------------------------------------------------------------

    def install(self) -> None:
        with self._login() as terminal:
            self._do(terminal, "sudo apt-get update --quiet=2")
            packages = " ".join(pages.prerequisites())
            self._do(terminal, f"sudo DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet=2 {packages}")
            self._do(terminal, "cd queuectl")
            for line in pages.lines(pages.README, "## Install"):
                self._do(terminal, line)
            self._do(terminal, "cd")
            self._do(terminal, "queuectl --version")

    def quick_start(self) -> None:
        with self._login() as terminal:
            for example in pages.console(pages.README, "## Quick start"):
                self._show(terminal, example.command, example.expected)

    def completion(self) -> None:
        with self._login() as terminal:
            self._do(terminal, "sudo DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet=2 zsh fish")
            for line in pages.lines(pages.COMMANDS, "## completion"):
                self._do(terminal, line)
            for shell in SHELLS:
                self._do(terminal, f"queuectl completion install {shell}")
        for shell in SHELLS:
            with self._login() as terminal:
                assert "not found" not in terminal.greeting, f"a login shows\n{terminal.greeting}"
                if shell != "bash":
                    terminal.press(f"{shell}\r", r"[%>] *$")
                for begun, completed in COMPLETIONS.items():
                    terminal.press(f"queuectl {begun}\t", f"queuectl {completed}")
                    print(f"   {shell}: {begun}<TAB>   : {completed}", flush=True)
                    terminal.send("\x15")  # Ctrl-U: the line is empty again
        with self._login() as terminal:
            self._do(terminal, "queuectl daemon stop")

    def own_service(self) -> None:
        with self._login() as terminal:
            for line in pages.lines(pages.SYSTEMD, "## For yourself"):
                self._do(terminal, line)
            # Two are remembered from the quick start.
            self._look(terminal, "queuectl status", r"Workers: 4 active")
            self._look(terminal, "queuectl run -- pwd", rf"^/home/{self._user}$")
            self._look(terminal, "queuectl daemon status", r"containment: +cgroup")
            self._look(terminal, "systemctl --user status --no-pager queuectld", r'Status: "4 workers, 0 jobs running')
            self._do(terminal, "queuectl enqueue --id over-the-logout -- sleep 5")
            self._do(terminal, "systemctl --user reload queuectld")
            self._look(terminal, "queuectl daemon status", r"reloads: +1")
        with self._login() as terminal:
            self._look(terminal, "queuectl wait over-the-logout", "completed")
            self._look(terminal, "queuectl show over-the-logout", "attempts: +1 of")
            self._do(terminal, "systemctl --user disable --now queuectld.socket queuectld.service")
            self._do(terminal, "queuectl service uninstall --user")
            self._do(terminal, "systemctl --user daemon-reload")
            self._do(terminal, f"sudo loginctl disable-linger {self._user}")

    def service_of_the_machine(self) -> None:
        with self._login() as terminal:
            self._do(terminal, "cd queuectl")
            for line in pages.lines(pages.SYSTEMD, "## For the machine"):
                self._do(terminal, line)
            self._look(terminal, "queuectl status", "no permission|not permitted|may not", status=3)
        with self._login() as terminal:
            for line in pages.lines(pages.SYSTEMD, "## For the machine", 1):
                self._look(terminal, line, r"^uid=\d+\(queuectl\) gid=\d+\(queuectl\)")
            self._look(terminal, "queuectl status", "Workers: 2 active")
            self._look(terminal, "queuectl daemon status", r"containment: +cgroup")
            self._look(terminal, "systemctl status --no-pager queuectld", r'Status: "2 workers, 0 jobs running')
            self._do(terminal, "sudo systemctl reload queuectld")
            self._look(terminal, "queuectl daemon status", r"reloads: +1")
            journal = "sudo journalctl --no-pager --output=cat --unit=queuectld --priority"
            self._look(terminal, f"{journal} info", r"^info +ready")
            self._look(terminal, f"{journal} warning", r"^(?:-- No entries --|)\n?\Z")
            self._do(terminal, "sudo systemctl disable --now queuectld.socket queuectld.service")
            self._do(terminal, "sudo /opt/queuectl/bin/queuectl service uninstall")

    def check(self) -> None:
        with self._login() as terminal:
            self._do(terminal, "cd queuectl")
            self._do(terminal, ".ci/run", CHECK_PATIENCE, tail=12)

    def check_as_root(self) -> None:
        with self._login() as terminal:
            self._do(terminal, "cd queuectl")
            self._do(terminal, f"sudo make test TESTS='{' '.join(_tests_of_root())}'", CHECK_PATIENCE, tail=12)

    # --- what a person does -----------------------------------------------------------------------------------------

    def _login(self) -> Terminal:
        # `script` for a terminal that the machine itself has made: a shell asks it for its process groups.
        login = f"su --login {self._user}"
        return Terminal(
            [str(BOOT), "run", str(self._machine.directory), "script", "-qec", login, "/dev/null"], self._log
        )

    def _do(self, terminal: Terminal, line: str, patience: float = 600.0, tail: int = 0) -> str:
        """Type a line that must succeed; of what it showed, the last `tail` lines are printed."""
        began = time.monotonic()
        status, shown = terminal.type(line, patience)
        print(f"   $ {line}   ({time.monotonic() - began:.1f} s)", flush=True)
        assert status == 0, f"`{line}` exited {status}:\n{shown}"
        print("".join(f"     {text}\n" for text in shown.splitlines()[-tail:] if tail), end="", flush=True)
        return shown

    def _show(self, terminal: Terminal, command: str, expected: str) -> None:
        """Type an example of the page, which must show what the page shows."""
        # On a terminal, empty cells are empty.
        expected = re.sub(r" -(?= |$)", "  ", expected, flags=re.MULTILINE)
        deadline = time.monotonic() + LOOK_PATIENCE
        while not agrees(expected, shown := terminal.type(command)[1]):
            again = LOOKS.match(command) and time.monotonic() < deadline
            assert again, f"`{command}` shows\n{shown}\nand the page shows\n{expected}"
        print(f"   $ {command}", flush=True)

    def _look(self, terminal: Terminal, command: str, pattern: str, status: int = 0) -> None:
        """Type a command until it shows what it must; the daemon may need a moment for it."""
        deadline = time.monotonic() + LOOK_PATIENCE
        while True:
            seen, shown = terminal.type(command)
            if seen == status and re.search(pattern, shown, re.MULTILINE):
                break
            assert time.monotonic() < deadline, f"`{command}` exited {seen}, without {pattern!r}:\n{shown}"
        print(f"   $ {command}   : {pattern}", flush=True)


def _tests_of_root() -> list[str]:
    """The files in which some tests are skipped for others."""
    files = [path for path in (REPOSITORY / "tests").rglob("test_*.py") if _NEEDS_ROOT.search(path.read_text())]
    return sorted(str(path.relative_to(REPOSITORY)) for path in files)
