"""A booted systemd with queuectl in it: what `boot-systemd` makes, as an object for tests."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from queuectl_client.system.units import out_of_reach

REPOSITORY = Path(__file__).parents[2]
BOOT = Path(__file__).with_name("boot-systemd")
PREFIX = Path("/opt/queuectl")
"""Where queuectl is installed on the booted machine."""
QUEUECTL = str(PREFIX / "bin/queuectl")
DEADLINE = 30.0
"""Seconds after which what was waited for does not come any more."""

T = TypeVar("T")


def why_not() -> str:
    """Why no systemd can be booted here; "" if one can."""
    if os.geteuid() != 0:
        return "booting a systemd needs root"
    if not Path("/lib/systemd/systemd").exists():
        return "systemd is not installed"
    if missing := [tool for tool in ("unshare", "nsenter", "pivot_root") if shutil.which(tool) is None]:
        return f"{missing[0]} is not installed (util-linux)"
    filesystems = Path("/proc/filesystems").read_text().split()
    if missing := [name for name in ("cgroup2", "overlay", "tmpfs") if name not in filesystems]:
        return f"the kernel has no {missing[0]}"
    if not any(Path(root, "cgroup.procs").exists() for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")):
        return "cgroup v2 is not mounted"
    probe = ["unshare", "--cgroup", "--mount", "--uts", "--ipc", "--net", "--pid", "--fork"]
    probe += ["sh", "-c", "mount --make-rprivate / && mount -t cgroup2 cgroup2 /mnt"]
    if (done := subprocess.run(probe, capture_output=True, text=True, check=False)).returncode:
        return f"namespaces can't be made here: {done.stderr.strip()}"
    if python_for_everybody() is None:
        return f"there is no Python {sys.version_info[0]}.{sys.version_info[1]} outside of home directories"
    return ""


def python_for_everybody() -> Path | None:
    """One of this version, whose compiled packages are therefore right, that a service with ProtectHome= can run."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    for candidate in (
        Path(sys.executable).resolve(),
        Path(f"/usr/bin/python{version}"),
        Path(f"/usr/local/bin/python{version}"),
    ):
        if candidate.exists() and not out_of_reach([candidate]):
            return candidate
    return None


def prepare(root: Path) -> None:
    """Install queuectl below `root` as pip would install its wheel, but without an index."""
    prefix = root / PREFIX.relative_to("/")
    subprocess.run([str(python_for_everybody()), "-m", "venv", "--without-pip", prefix], check=True, timeout=60)
    site = next(prefix.glob("lib/python*/site-packages"))
    for package in ("protocol/queuectl_protocol", "queuectld", "queuectl_client"):
        shutil.copytree(REPOSITORY / package, site / Path(package).name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(REPOSITORY / "systemd", site / "queuectl_client/system/templates")
    for distribution in _with_requirements("click", "msgspec", "platformdirs", "rich"):
        for file in distribution.files or []:
            if file.parts[0] != ".." and "__pycache__" not in file.parts:
                target = site / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(str(distribution.locate_file(file)), target)
    for name, module in (("queuectl", "queuectl_client"), ("queuectld", "queuectld")):
        script = prefix / "bin" / name
        script.write_text(f"#!{PREFIX}/bin/python\nfrom {module}.entry import main\nmain()\n")
        script.chmod(0o755)
    for path in (root, *root.rglob("*")):  # readable for everybody, whatever the umask of whoever runs the tests
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o444))


def _with_requirements(*names: str) -> list[importlib.metadata.Distribution]:
    found: dict[str, importlib.metadata.Distribution] = {}
    todo = list(names)
    while todo:
        name = todo.pop().lower()
        if name in found:
            continue
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            if name in names:
                raise
            continue  # wanted on other systems only
        todo += [
            re.split(r"[^A-Za-z0-9._-]", requirement)[0]
            for requirement in found[name].requires or []
            if "extra ==" not in requirement
        ]
    return list(found.values())


def eventually(probe: Callable[[], T], what: str) -> T:
    """The first truthy answer of `probe`.

    Raises:
        AssertionError: none within DEADLINE.
    """
    end = time.monotonic() + DEADLINE
    while True:
        answer = probe()
        if answer:
            return answer
        assert time.monotonic() < end, f"after {DEADLINE:g} s still not: {what} (last: {answer!r})"
        time.sleep(0.05)


class Machine:
    """A machine with systemd as its PID 1, booted over a throw-away overlay of a root directory.

    Args:
        directory: for the overlay, on a real file system.
        root: the root directory; nothing is changed in it.
        network: with this machine's network, not with `lo` alone.
    """

    def __init__(self, directory: Path, root: Path = Path("/"), *, network: bool = False) -> None:
        self.directory = directory
        environment = {**os.environ, "ROOT": str(root), "NETWORK": "host" if network else "none"}
        self.state = subprocess.run(
            [BOOT, "up", directory], env=environment, capture_output=True, text=True, check=True, timeout=60
        ).stdout.split()[0]

    def cut(self) -> None:
        """End all of it at once, as when the power fails: what a failed test left running is not waited for."""
        subprocess.run([BOOT, "cut", self.directory], capture_output=True, check=True, timeout=60)

    def run(self, *command: str, status: int | None = 0, user: str = "root") -> str:
        """What the command printed on standard output; as another user, with the environment of a login.

        Raises:
            AssertionError: it exited with another status than `status` (None: any).
        """
        argv = ["env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"]
        if user == "root":
            argv += ["HOME=/root"]
        else:
            # What pam_systemd sets in a login, which runuser without a terminal does not ask for.
            uid = self.run("id", "-u", user).strip()
            argv += ["runuser", "-u", user, "--", "env", "-C", f"/home/{user}", f"HOME=/home/{user}", f"USER={user}"]
            argv += [f"XDG_RUNTIME_DIR=/run/user/{uid}"]
        done = subprocess.run(
            [BOOT, "run", self.directory, *argv, *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert status in (None, done.returncode), f"{command} exited {done.returncode}: {done.stdout}{done.stderr}"
        self.errors = done.stderr
        return done.stdout

    def sh(self, script: str, *, status: int | None = 0, user: str = "root") -> str:
        return self.run("sh", "-c", script, status=status, user=user).strip()

    def write(self, path: str, content: str) -> None:
        self.run("sh", "-c", 'mkdir -p "${1%/*}" && printf %s "$2" > "$1"', "sh", path, content)
