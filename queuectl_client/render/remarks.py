"""What is said to people beside the answer, on standard error."""

from __future__ import annotations

import sys

from queuectl_client.render.safe import visible


def remark(sentence: str, hint: str = "") -> None:
    """Write `queuectl: <sentence>`, and the hint on a line of its own."""
    lines = f"queuectl: {visible(sentence)}\n"
    if hint:
        lines += f"  hint: {visible(hint)}\n"
    sys.stderr.write(lines)
    sys.stderr.flush()
