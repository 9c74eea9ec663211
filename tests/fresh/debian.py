"""A bare Debian in a folder: made by debootstrap once, and kept for the next time."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

SUITES = ("bookworm", "trixie", "testing")

PACKAGES = ("ca-certificates", "dbus", "dbus-user-session", "libpam-systemd", "sudo", "systemd-sysv")
"""What the smallest installation of Debian that people log in to has, beyond debootstrap's minbase."""

_CERTIFICATES = "etc/ssl/certs/of-the-outer-machine.crt"


def cache() -> Path:
    """$FRESH_DIR, else a folder in the user's cache."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("FRESH_DIR") or Path(home, "queuectl-fresh")).absolute()


def root_of(suite: str) -> Path:
    """The folder of a bare `suite`, which is made where it is not there yet.

    Raises:
        AssertionError: debootstrap failed.
    """
    root = cache() / suite
    made_with = root.with_suffix(".packages")
    if made_with.exists() and made_with.read_text() == " ".join(PACKAGES):
        return root
    made_with.unlink(missing_ok=True)
    shutil.rmtree(root, ignore_errors=True)
    cache().mkdir(parents=True, exist_ok=True)
    include = f"--include={','.join(PACKAGES)}"
    command = ["debootstrap", "--variant=minbase", include, suite, str(root), *filter(None, [_mirror()])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout[-2000:]}{done.stderr}"
    made_with.write_text(" ".join(PACKAGES))
    return root


def _mirror() -> str:
    """$DEBIAN_MIRROR, else the one that this machine's apt uses for Debian, else debootstrap's default ("")."""
    if given := os.environ.get("DEBIAN_MIRROR"):
        return given
    sites = _output("apt-get", "indextargets", "--format", "$(SITE)", "Origin: Debian", "Label: Debian")
    return next((site for site in sites.splitlines() if site.startswith("http")), "")


def write_network_settings(root: Path) -> None:
    """Write below `root` how this machine reaches its package registries: names, proxies, certificates, pip's index."""
    for path in ("etc/apt/apt.conf.d", "etc/ssl/certs"):
        (root / path).mkdir(parents=True)
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    acquire = re.findall(r"^Acquire::(?:https?|Check).*$", _output("apt-config", "dump"), re.MULTILINE)
    (root / "etc/apt/apt.conf.d/90outer").write_text("".join(f"{line}\n" for line in acquire))
    lines = ["[global]"]
    for line in _output(sys.executable, "-m", "pip", "config", "list").splitlines():
        # `global.cert='/path'`, `:env:.index-url='...'`: the environment comes last, and wins in a file too.
        name, _, value = line.partition("=")
        key, value = name.rpartition(".")[2], value.strip("'")
        if key == "cert":
            shutil.copy(value, root / _CERTIFICATES)
            value = f"/{_CERTIFICATES}"
        if key not in {"find-links", "require-virtualenv"}:
            lines = [line for line in lines if not line.startswith(f"{key} =")] + [f"{key} = {value}"]
    (root / "etc/pip.conf").write_text("".join(f"{line}\n" for line in lines))


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return ""
