"""Answers for programs: one JSON object a line. Times are RFC 3339 in UTC."""

from __future__ import annotations

import msgspec

from queuectl_client.render.output import write_json

_encoder = msgspec.json.Encoder()


def print_json(value: object) -> None:
    """Write `value` on a line of standard output, where it can't do a terminal any harm."""
    write_json(_encoder.encode(value).decode())
