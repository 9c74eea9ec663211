"""Where the files of a worker are, and the mark that the processes of its attempt carry."""

from __future__ import annotations

from pathlib import Path

from queuectld.process_tree import marks


class Places:
    """Of one state directory.

    Attributes:
        state_dir: the directory.
        groups: the cgroup v2 directory where attempts get groups of their own, or None.
    """

    def __init__(self, state_dir: Path, groups: Path | None) -> None:
        self.state_dir = state_dir
        self.groups = groups
        self._queue_mark = marks.queue_mark(state_dir)  # asked for once: the directory may be gone later

    def lock_of(self, worker: str) -> Path:
        """The file that a worker and its job hold a lock on."""
        return self.state_dir / "workers" / f"{worker}.lock"

    def mark_of(self, token: str) -> str:
        """What is in the environment of an attempt's processes, and names its cgroup. "" where there is no attempt."""
        return f"{token}{self._queue_mark}" if token else ""
