"""`queuectl service install` and `uninstall` on files; tests/systemd has them in a running systemd."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from queuectl_client.commands.service import service
from queuectl_client.errors import ClientError
from queuectl_client.system.units import exec_path, out_of_reach

SYSTEM_FILES = [
    "etc/systemd/system/queuectld.service",
    "etc/systemd/system/queuectld.socket",
    "etc/sysusers.d/queuectl.conf",
]


@pytest.fixture(autouse=True)
def _nobody_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong, nothing is written outside of the temporary directory, and no systemd is asked."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)


def run(*arguments: str | Path) -> Result:
    """The command as the queuectl program runs it: a ClientError comes through."""
    result = CliRunner().invoke(service, [str(argument) for argument in arguments], catch_exceptions=True)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def install(root: Path, *arguments: str | Path, scope: str = "--system") -> Result:
    return run("install", scope, "--root", root, "--queuectld", "/opt/queuectl/bin/queuectld", *arguments)


def written(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*")) if path.is_file()}


def test_install_writes_the_system_units_with_the_path_of_the_program(tmp_path: Path) -> None:
    result = install(tmp_path)
    assert result.exit_code == 0
    files = written(tmp_path)
    assert sorted(files) == sorted(SYSTEM_FILES)
    assert "\nExecStart=/opt/queuectl/bin/queuectld\n" in files["etc/systemd/system/queuectld.service"]
    # No `kill`: a minimal machine has none but its shells' own.
    reload = "\nExecReload=/opt/queuectl/bin/queuectl daemon reload\n"
    assert reload in files["etc/systemd/system/queuectld.service"]
    assert not any("@QUEUECTL" in text for text in files.values())
    assert sorted(result.stdout.split()[1::2]) == sorted(str(tmp_path / name) for name in SYSTEM_FILES)
    assert all((tmp_path / name).stat().st_mode & 0o777 == 0o644 for name in SYSTEM_FILES)


def test_install_writes_the_user_units_where_systemd_looks_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "root", scope="--user")
    home = (tmp_path / "home").relative_to("/")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/etc/skel/.config")
    install(tmp_path / "root", scope="--user")
    names = {
        f"{config}/systemd/user/queuectld.{kind}"
        for config in (home / ".config", "etc/skel/.config")
        for kind in ("service", "socket")
    }
    assert set(written(tmp_path / "root")) == names


def test_install_without_a_root_says_the_next_command(tmp_path: Path) -> None:
    result = run("install", "--user", "--queuectld", "/opt/queuectl/bin/queuectld")
    assert (tmp_path / "home/.config/systemd/user/queuectld.service").exists()
    assert (
        "Next: systemctl --user daemon-reload && systemctl --user enable --now queuectld.socket queuectld.service\n"
        in result.stdout
    )
    assert "loginctl enable-linger" in result.stdout
    assert "queuectl worker start" in result.stdout


def test_install_finds_the_daemon_beside_the_client_before_that_in_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("venv", "path"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv/python"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    with pytest.raises(ClientError, match="queuectld was not found"):
        run("install", "--user", "--root", tmp_path)
    for name in ("path", "venv"):
        program = tmp_path / name / "queuectld"
        program.touch(mode=0o755)
        run("install", "--user", "--root", tmp_path)
        unit = (tmp_path / str(tmp_path / "home").lstrip("/") / ".config/systemd/user/queuectld.service").read_text()
        assert f"\nExecStart={program}\n" in unit


def test_a_second_install_changes_nothing(tmp_path: Path) -> None:
    install(tmp_path)
    before = written(tmp_path)
    inodes = {name: (tmp_path / name).stat().st_ino for name in before}
    result = install(tmp_path)
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["unchanged"] * len(SYSTEM_FILES)
    assert written(tmp_path) == before
    assert {name: (tmp_path / name).stat().st_ino for name in before} == inodes


def test_install_replaces_what_it_wrote_itself(tmp_path: Path) -> None:
    install(tmp_path)
    result = run("install", "--system", "--root", tmp_path, "--queuectld", "/usr/bin/queuectld")
    assert "ExecStart=/usr/bin/queuectld\n" in written(tmp_path)["etc/systemd/system/queuectld.service"]
    assert "wrote" in result.stdout


@pytest.mark.parametrize("change", ["edited", "without a signature", "masked", "not UTF-8"])
def test_a_unit_changed_by_hand_is_kept_unless_forced(change: str, tmp_path: Path) -> None:
    install(tmp_path)
    unit = tmp_path / "etc/systemd/system/queuectld.service"
    if change == "edited":
        unit.write_text(unit.read_text().replace("RestartSec=1s", "RestartSec=5s"))
    elif change == "without a signature":
        unit.write_text("[Service]\nExecStart=/bin/true\n")
    elif change == "not UTF-8":
        unit.write_bytes(b"\xff\xfe")
    else:
        unit.unlink()
        unit.symlink_to("/dev/null")
    socket = tmp_path / "etc/systemd/system/queuectld.socket"
    socket.unlink()  # to be written, if anything were
    for command, program in (("install", ["--queuectld", "/usr/bin/queuectld"]), ("uninstall", [])):
        with pytest.raises(ClientError, match=r"queuectld\.service was changed by hand") as refused:
            run(command, "--system", "--root", tmp_path, *program)
        assert "--force" in refused.value.hint
    assert not socket.exists()
    assert (tmp_path / "etc/sysusers.d/queuectl.conf").exists()

    install(tmp_path, "--force")
    assert not unit.is_symlink()
    assert "RestartSec=1s" in unit.read_text()
    assert socket.exists()


def test_uninstall_removes_just_what_install_wrote(tmp_path: Path) -> None:
    other = tmp_path / "etc/systemd/system/other.service"
    drop_in = tmp_path / "etc/systemd/system/queuectld.service.d/override.conf"
    for path in (other, drop_in):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("[Service]\n")
    run("install", "--system", "--root", tmp_path, "--queuectld", "/elsewhere/queuectld")
    result = run("uninstall", "--system", "--root", tmp_path)
    assert result.stdout.count("removed ") == len(SYSTEM_FILES)
    assert sorted(written(tmp_path)) == sorted(str(path.relative_to(tmp_path)) for path in (other, drop_in))
    assert run("uninstall", "--system", "--root", tmp_path).stdout == "nothing to remove\n"


def test_the_signature_is_over_everything_before_it(tmp_path: Path) -> None:
    install(tmp_path)
    for text in written(tmp_path).values():
        signed, _, signature = text.rstrip("\n").rpartition("\n")
        assert signature.endswith(hashlib.sha256(signed.encode()).hexdigest())


@pytest.mark.parametrize(
    ("program", "written"),
    [
        ("/usr/bin/queuectld", "/usr/bin/queuectld"),
        ("/opt/my queue/queuectld", '"/opt/my queue/queuectld"'),
        ("/opt/100%/queuectld", "/opt/100%%/queuectld"),
        ("/opt/ärger/$HOME/queuectld", "/opt/ärger/$HOME/queuectld"),
    ],
)
def test_exec_path(program: str, written: str) -> None:
    assert exec_path(Path(program)) == written


@pytest.mark.parametrize(
    "program", ["/opt/a'b/queuectld", '/opt/a"b/queuectld', "/opt/a\\b/queuectld", "/opt/a\nb/queuectld"]
)
def test_a_path_that_systemd_refuses_is_refused_before_anything_is_written(program: str, tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="quotes, backslashes or control characters"):
        run("install", "--system", "--root", tmp_path, "--queuectld", program)
    assert written(tmp_path) == {}


def test_a_relative_program_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="not an absolute path"):
        run("install", "--system", "--root", tmp_path, "--queuectld", "bin/queuectld")
    assert written(tmp_path) == {}


def test_a_place_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "etc").write_text("not a directory")
    with pytest.raises(ClientError, match=r"can't (read|write) .*/etc/.*: Not a directory"):
        install(tmp_path)


def test_install_warns_of_a_program_that_the_service_can_not_reach(tmp_path: Path) -> None:
    result = run("install", "--system", "--root", tmp_path, "--queuectld", "/home/alice/venv/bin/queuectld")
    assert result.exit_code == 0
    assert "queuectl: the service can't reach /home/alice/venv/bin/queuectld" in result.stderr
    assert "/opt/queuectl" in result.stderr
    assert install(tmp_path / "other").stderr == ""


def test_out_of_reach(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    link = Path("/tmp/../root/queuectld")
    assert out_of_reach([closed / "queuectld", link, Path("/usr/bin/env"), Path("/nonexistent/queuectld")]) == [
        closed / "queuectld",
        link,
    ]
