"""The units, as `queuectl service install` writes them, before the eyes of systemd's own checker."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from queuectl_client.commands.service import service

MOST_EXPOSURE = 2.0
"""Of 10, as `systemd-analyze security` counts; an empty unit has 9.6."""

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


@pytest.fixture(params=["bin", "a directory/100%"])
def program(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An ordinary path, and one that systemd reads only if it is escaped."""
    directory = tmp_path / str(request.param)
    directory.mkdir(parents=True)
    for name in ("queuectl", "queuectld"):
        (directory / name).write_text("#!/bin/sh\n")
        (directory / name).chmod(0o755)
    return directory / "queuectld"


def install(scope: str, root: Path, program: Path) -> list[Path]:
    arguments = ["install", f"--{scope}", "--root", str(root), "--queuectld", str(program)]
    result = CliRunner().invoke(service, arguments, env={"XDG_CONFIG_HOME": "/config"}, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return sorted(root.rglob("queuectld.*"))


def complaints(scope: str, units: list[Path], runtime: Path) -> str:
    """What systemd-analyze has to say about our units; what it thinks of the machine's own is no concern of ours."""
    done = subprocess.run(
        ["systemd-analyze", f"--{scope}", "--recursive-errors=no", "verify", *units],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "XDG_RUNTIME_DIR": str(runtime), "SYSTEMD_LOG_LEVEL": "info"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    ours = "".join(line for line in done.stderr.splitlines(keepends=True) if "queuectl" in line)
    return ours or (f"exit status {done.returncode}: {done.stderr}" if done.returncode else "")


@pytest.mark.parametrize("scope", ["system", "user"])
def test_verify_is_clean(scope: str, program: Path, tmp_path: Path) -> None:
    units = install(scope, tmp_path / "root", program)
    assert [unit.name for unit in units] == ["queuectld.service", "queuectld.socket"]
    assert complaints(scope, units, tmp_path) == ""


@pytest.mark.parametrize(
    ("wrong", "complaint"), [("KilMode=process", "KilMode"), ("ExecStart=/nonexistent", "ExecStart")]
)
def test_verify_would_notice(wrong: str, complaint: str, program: Path, tmp_path: Path) -> None:
    """Else a clean answer would mean nothing."""
    units = install("system", tmp_path / "root", program)
    units[0].write_text(units[0].read_text().replace("[Service]\n", f"[Service]\n{wrong}\n"))
    assert complaint in complaints("system", units, tmp_path)


def test_the_system_service_is_exposed_as_little_as_jobs_allow(tmp_path: Path) -> None:
    units = install("system", tmp_path / "root", Path("/usr/bin/env"))
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", units[0]],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    found = re.search(r"Overall exposure level for queuectld\.service: ([0-9.]+)", done.stdout)
    assert found is not None, done.stdout
    assert float(found[1]) <= MOST_EXPOSURE


def test_the_sysusers_snippet_is_read_by_systemd(tmp_path: Path) -> None:
    if shutil.which("systemd-sysusers") is None:
        pytest.skip("systemd-sysusers is not installed")
    root = tmp_path / "root"
    install("system", root, Path("/usr/bin/env"))
    snippet = root / "etc/sysusers.d/queuectl.conf"
    subprocess.run(["systemd-sysusers", f"--root={root}", snippet], capture_output=True, check=True, timeout=60)
    name, _, _, _, _, home, shell = (root / "etc/passwd").read_text().strip().split(":")
    assert (name, home, Path(shell).name) == ("queuectl", "/var/lib/queuectl/home", "nologin")
    assert (root / "etc/group").read_text().startswith("queuectl:")
