"""Programs of this checkout for users who can't read it: a clone may lie in a home that is closed to others."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.harness import CHECKOUT, ROOT
from tests.systemd.machine import PREFIX, prepare, python_for_everybody


@contextmanager
def python_and_path() -> Iterator[tuple[str, str] | None]:
    """An interpreter that every user may run, and the PYTHONPATH that it needs; None where no such interpreter is."""
    if all(_is_open(path) for path in (Path(sys.executable), Path(sys.executable).resolve(), ROOT / "queuectld")):
        yield sys.executable, CHECKOUT
    elif python_for_everybody() is None:
        yield None
    else:
        directory = Path(tempfile.mkdtemp(prefix="qctl-"))
        try:
            directory.chmod(0o755)
            prepare(directory)
            yield str(directory / PREFIX.relative_to("/") / "bin/python"), ""
        finally:
            shutil.rmtree(directory)


def _is_open(path: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for parent in path.parents)
