"""Runs a call that the table of options explains wholly. Whatever else happens is left to click."""

from __future__ import annotations

import gc
import sys

from queuectl_client import verbs
from queuectl_client.direct.asking import Asking
from queuectl_client.errors import BadRequest
from queuectl_client.render import output
from queuectl_client.wire import plain
from queuectl_protocol.errors import ProtocolError

TYPE_CHECKING = False  # as in queuectl_protocol.trust
if TYPE_CHECKING:
    from typing import Any

    from queuectl_client.direct.parse import Call

MOST_LISTED = 100
"""Jobs that are listed here. More are read faster by the structs, and may come in several pages."""


def run(call: Call) -> int | None:
    """Run the command; the exit status, or None if click has to run it. Then nothing was printed or changed.

    Raises:
        ClientError, ProtocolError: there is something to say of it, which `cli.fail` does.
        OSError: as well.
        KeyboardInterrupt: Ctrl-C.
    """
    gc.enable()
    output.prepare()
    try:
        status = _VERBS[call.command](call)
    except plain.UnclearError:
        return None
    except BrokenPipeError:
        status = output.BROKEN_PIPE
    except KeyboardInterrupt:
        sys.stderr.write("\n")  # a terminal's ^C is still on the line
        raise
    return None if status is None else output.flushed(status)


def _print_json(value: object) -> None:
    output.write_json(plain.encode(value))


def _print_json_if(wanted: object) -> Any:
    return _print_json if wanted else None


def _asking(call: Call) -> Any:
    """A client. The verbs know its answers by the structs that `Client` answers with."""
    return Asking(call.socket)


def _enqueue(call: Call) -> int | None:
    from queuectl_client.jobs import new_ids  # noqa: PLC0415 - for one verb
    from queuectl_client.jobs.as_typed import fields_of  # noqa: PLC0415
    from queuectl_client.render.ids import print_ids  # noqa: PLC0415

    shared = dict(call.values)
    as_json, file, command = shared.pop("as_json"), shared.pop("file"), shared.pop("command")
    if file is not None or (call.program is None) == (command is None):
        return None
    try:
        fields, left_out = fields_of(
            call.program, command, shared.pop("cwd"), shared.pop("env"), shared.pop("clean_env"), shared
        )
    except BadRequest:
        return None
    if left_out:
        return None
    client = _asking(call)
    made = None if "id" in fields else new_ids.make()
    try:
        ids = client.enqueue(fields if made is None else {**fields, "id": made})
    except (ProtocolError, plain.UnclearError) as error:
        # What is wrong with a field, the structs say. The same request has to have the same id.
        if made is not None:
            new_ids.put_back(made)
        if isinstance(error, ProtocolError) and error.kind != "invalid_params":
            raise
        return None
    print_ids(ids, as_json=as_json)
    verbs.say_if_nothing_runs(client)
    return output.DONE


def _wait(call: Call) -> int:
    return verbs.wait(
        _asking(call), call.values["jobs"], call.values["timeout"], _print_json_if(call.values["as_json"])
    )


def _cancel(call: Call) -> int | None:
    if call.values["ids_from"] is not None:
        return None
    found = verbs.cancel(_asking(call), call.values["jobs"], no_wait=call.values["no_wait"])
    return verbs.print_cancelled(found, _print_json_if(call.values["as_json"]))


def _list(call: Call) -> int | None:
    values = dict(call.values)
    as_json = values.pop("as_json")
    if not 0 < values["limit"] <= MOST_LISTED or not (as_json or _is_plain()):
        return None
    client = _asking(call)
    if not as_json:
        client = _Timed(client)
    verbs.list_jobs(client, **values, print_json=_print_json_if(as_json))
    return output.DONE


def _status(call: Call) -> int | None:
    as_json = call.values["as_json"]
    if not (as_json or _is_plain()):
        return None
    client = _asking(call)
    status = client.status()
    verbs.print_status(status if as_json else with_times(status), _print_json_if(as_json))
    return output.DONE


def _is_plain() -> bool:
    """A terminal gets what rich draws."""
    return not sys.stdout.isatty()


class _Timed:
    """A client whose lists are for people."""

    def __init__(self, client: Asking) -> None:
        self._client = client

    def list(self, *wanted: Any, **more: Any) -> Any:
        return map(with_times, self._client.list(*wanted, **more))


def with_times(value: Any) -> Any:
    """The same answer, with times where it has text that is one: fields whose names end in `_at`."""
    from datetime import datetime  # noqa: PLC0415 - people see times, programs text

    if isinstance(value, list):
        return [with_times(one) for one in value]
    if not isinstance(value, plain.Fields):
        return value
    return plain.Fields({
        name: datetime.fromisoformat(field) if name.endswith("_at") and field is not None else with_times(field)
        for name, field in value.items()
    })  # fmt: skip


_VERBS = {"enqueue": _enqueue, "wait": _wait, "cancel": _cancel, "list": _list, "status": _status}
