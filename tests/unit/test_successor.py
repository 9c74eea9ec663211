"""The check of the installed program, as the process that waits for it sees it."""

from __future__ import annotations

import os
import sys
import time

from queuectld.host.successor import Running, Trial


def test_one_that_is_given_up_before_it_begins_holds_up_nobody() -> None:
    """Its thread may begin only after the daemon was asked to stop, and the stop waits for that thread."""
    trial = Trial([sys.executable, "-c", "import time; time.sleep(1000)"], Running("/", "", ""), os.environ)
    trial.give_up()
    began = time.monotonic()
    trial.fault()
    assert time.monotonic() - began < 60
