"""The systemd units of the daemon: what is written where, and which of the files on disk are still as written.

Nothing in here starts a program or asks who the user is: `commands/service.py` does.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from queuectl_client.errors import ClientError

Scope = Literal["system", "user"]
UNITS = ("queuectld.socket", "queuectld.service")
SERVICE_USER = "queuectl"
SERVICE_HOME = "/var/lib/queuectl/home"

_DAEMON, _CLIENT = "@QUEUECTLD@", "@QUEUECTL@"
"""Where the templates name the programs."""
_SIGNATURE = "# Written by `queuectl service install`; unchanged as long as this is its SHA-256: "
_PROTECTED = (Path("/home"), Path("/root"), Path("/run/user"))
"""What ProtectHome=yes hides from the system service."""


@dataclass(frozen=True, slots=True)
class UnitFile:
    """A file to be written.

    Attributes:
        path: where, below the root asked for.
        content: what, signature included.
    """

    path: Path
    content: str

    def state(self) -> Literal["missing", "current", "older", "foreign"]:
        """What is at `path`: nothing, this content, something written earlier, or something of somebody else's making.

        Raises:
            ClientError: it can't be read.
        """
        if self.path.is_symlink():  # `systemctl mask`, or a distribution's way of its own
            return "foreign"
        try:
            there = self.path.read_bytes()
        except FileNotFoundError:
            return "missing"
        except OSError as error:
            raise ClientError(f"can't read {self.path}: {error.strerror}") from None
        if there == self.content.encode():
            return "current"
        return "older" if _is_signed(there) else "foreign"

    def write(self) -> None:
        """In one step: a crash leaves the old file or the new one.

        Raises:
            ClientError: it can't be written.
        """
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                temporary.write_text(self.content)
                temporary.chmod(0o644)
                temporary.replace(self.path)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise ClientError(f"can't write {self.path}: {error.strerror}") from None

    def remove(self) -> None:
        """
        Raises:
            ClientError: it can't be removed.
        """
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise ClientError(f"can't remove {self.path}: {error.strerror}") from None


def unit_files(scope: Scope, queuectld: Path, root: Path, environ: Mapping[str, str]) -> list[UnitFile]:
    """All files of `scope`, with `queuectld` as the daemon's program and `queuectl` beside it, below `root`.

    Raises:
        ClientError: systemd can't run a program of this path.
    """
    targets = {Path("system", unit): Path("etc/systemd/system", unit) for unit in UNITS}
    targets[Path("sysusers.d/queuectl.conf")] = Path("etc/sysusers.d/queuectl.conf")
    if scope == "user":
        config = Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config").relative_to("/")
        targets = {Path("user", unit): config / "systemd/user" / unit for unit in UNITS}
    daemon, client = exec_path(queuectld), exec_path(queuectld.with_name("queuectl"))
    templates = _templates()
    return [
        UnitFile(
            root / target,
            _sign((templates / source).read_text().replace(_DAEMON, daemon).replace(_CLIENT, client)),
        )
        for source, target in targets.items()
    ]


def exec_path(program: Path) -> str:
    """`program` as the first word of ExecStart=.

    Raises:
        ClientError: systemd refuses a program with such a path, however it is quoted.
    """
    text = str(program)
    if not text.isprintable() or any(character in text for character in "\"'\\"):
        raise ClientError(
            f"systemd can't start a program whose path has quotes, backslashes or control characters: {text!r}",
            "install queuectl in another directory",
        )
    text = text.replace("%", "%%")  # else the beginning of a specifier
    return f'"{text}"' if " " in text else text


def out_of_reach(needed: Iterable[Path]) -> list[Path]:
    """Those of the `needed` files that the system service, under its own user and ProtectHome=yes, can't get at."""
    return [path for path in dict.fromkeys(needed) if _is_hidden(path) or _is_hidden(path.resolve())]


def _is_hidden(path: Path) -> bool:
    if any(path.is_relative_to(protected) for protected in _PROTECTED):
        return True
    try:
        return not all(parent.stat().st_mode & 0o001 for parent in path.parents)
    except FileNotFoundError:  # a package's path, not there yet
        return False
    except OSError:
        return True


def _templates() -> Path:
    """The units as they come with the package; in a checkout, where they are kept."""
    room = Path(__file__).parent
    packaged = room / "templates"
    return packaged if packaged.is_dir() else room.parent.parent / "systemd"


def _sign(text: str) -> str:
    return f"{text}\n{_SIGNATURE}{hashlib.sha256(text.encode()).hexdigest()}\n"


def _is_signed(content: bytes) -> bool:
    text, found, digest = content.rpartition(b"\n" + _SIGNATURE.encode())
    return bool(found) and digest.strip() == hashlib.sha256(text).hexdigest().encode()
