"""`make fresh SUITE=trixie`: README.md and docs/, walked to the letter on a bare Debian by a user made for it.

The Debian is a folder, booted with its own systemd over a throw-away overlay, with this machine's network for pip.
The user sits at a terminal and types what the pages say. The first thing that fails ends it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.fresh import debian
from tests.fresh.walk import Walk
from tests.systemd.machine import REPOSITORY, Machine

USER = "ada"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fresh", description="Walk README.md and docs/ on a bare Debian."
    )
    parser.add_argument("suite", choices=debian.SUITES)
    parser.add_argument("--without-check", action="store_true", help="all but `.ci/run`, which takes most of the time")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        return _refuse("this needs root: it boots a Debian")
    for tool, package in (("debootstrap", "debootstrap"), ("unshare", "util-linux"), ("git", "git")):
        if shutil.which(tool) is None:
            return _refuse(f"{tool} is not installed (on Debian: apt install {package})")
    began = time.monotonic()
    print(f"Debian {arguments.suite}, in {debian.cache()}", flush=True)
    log = debian.cache() / f"{arguments.suite}.log"
    log.unlink(missing_ok=True)
    debian.cache().mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix=f"{arguments.suite}-", dir=debian.cache()))
    try:
        root = debian.root_of(arguments.suite)
        _prepare(directory / "inject")
        machine = Machine(directory, root=root, network=True)
        try:
            _make_user(machine)
            walk = Walk(machine, USER, log)
            walk.go(check=not arguments.without_check)
        finally:
            machine.cut()
    except AssertionError as fault:
        print(f"\nFAILED: {fault}\n(everything that was shown: {log})", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(f"\nDebian {arguments.suite}: all of it is as README.md and docs/ say ({time.monotonic() - began:.0f} s).")
    return 0


def _refuse(reason: str) -> int:
    print(f"make fresh: {reason}", file=sys.stderr)
    return 2


def _prepare(inject: Path) -> None:
    """What is there before the user comes: the way to the registries, and a clone of what is committed here."""
    inject.mkdir()
    debian.write_network_settings(inject)
    clone = inject / "home" / USER / "queuectl"
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", REPOSITORY, clone], check=True)
    commit = subprocess.run(
        ["git", "-C", clone, "log", "-1", "--format=%h %s"], capture_output=True, text=True, check=True
    )
    print(f"A clone of {commit.stdout.strip()}", flush=True)
    if subprocess.run(["git", "-C", REPOSITORY, "status", "--porcelain"], capture_output=True, check=True).stdout:
        print("(what is not committed is not in it)", flush=True)


def _make_user(machine: Machine) -> None:
    home = f"/home/{USER}"
    machine.run("useradd", "--shell", "/bin/bash", "--groups", "sudo", USER)
    machine.sh(f"cp -rT /etc/skel {home} && chown -R {USER}: {home} && chmod 700 {home}")
    # As Debian's installer does; without it, each sudo says that it does not know the host.
    machine.sh('printf "127.0.0.1 localhost\\n127.0.1.1 %s\\n" "$(hostname)" >/etc/hosts')
    machine.sh(f"echo '{USER} ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/{USER}")


if __name__ == "__main__":
    sys.exit(main())
