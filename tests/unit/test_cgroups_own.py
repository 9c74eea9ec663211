"""Where a process finds its own control group."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from queuectld.process_tree import cgroups
from tests.harness import CHECKOUT


def test_a_mount_whose_name_is_not_utf8_is_no_obstacle(directory: Path) -> None:
    """As of a stick with an old label: no daemon could start on that machine."""
    place = directory / os.fsdecode(b"\xe4")
    place.mkdir()
    mount = 'mount -t tmpfs none "$1" && shift && exec "$@"'
    program = "from queuectld.process_tree import cgroups; print(cgroups.own_group())"
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", mount, "sh", place, sys.executable, "-c", program],
        env={"PYTHONPATH": CHECKOUT, "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip("no mount namespaces here")
    assert done.stdout.strip() == str(cgroups.own_group()), done.stderr
