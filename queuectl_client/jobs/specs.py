"""Jobs as asked for: from fields, and from JSON text. Errors name the field; nothing is sent."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from queuectl_client.errors import BadRequest
from queuectl_client.jobs import new_ids
from queuectl_protocol.framing import explain
from queuectl_protocol.jobs import Job, JobSpec

_HINT = "`queuectl enqueue --help` names the fields"
_LOOKS = 'a job looks like {"command": "echo hello"}'
_MADE = frozenset(Job.__struct_fields__) - frozenset(JobSpec.__struct_fields__)
"""Fields of a job that the daemon made."""
_spec_decoder = msgspec.json.Decoder(JobSpec)
_array_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_fields_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


def with_id(spec: JobSpec) -> JobSpec:
    """The same job, with an id if it had none.

    Ids are made on this side, so that a request that is sent again can't enqueue a job twice.
    """
    if spec.id is None:
        # The struct is frozen for those who hold it; nobody else holds this one yet, and a copy would be checked anew.
        msgspec.structs.force_setattr(spec, "id", new_ids.make())
    return spec


def from_fields(fields: Mapping[str, Any]) -> JobSpec:
    """A job from its fields, those that are None left out.

    Raises:
        BadRequest: it can't be run; the message names the field.
    """
    try:
        return with_id(msgspec.convert({key: value for key, value in fields.items() if value is not None}, JobSpec))
    except msgspec.ValidationError as error:
        raise BadRequest(explain(error), _HINT) from None


def reader(defaults: Mapping[str, Any]) -> Callable[[bytes | msgspec.Raw], JobSpec]:
    """A function that reads one JSON object as a job; `defaults` stand in for the fields that it does not give.

    It raises BadRequest, which names the field.
    """
    given = {key: msgspec.Raw(msgspec.json.encode(value)) for key, value in defaults.items() if value is not None}

    def read(text: bytes | msgspec.Raw) -> JobSpec:
        try:
            try:
                if not given:
                    return with_id(_spec_decoder.decode(text))
                return with_id(_spec_decoder.decode(msgspec.json.encode(given | _fields_decoder.decode(text))))
            except msgspec.ValidationError:
                asked = _asked_for(_fields_decoder.decode(text))
                if asked is None:
                    raise
                return with_id(_spec_decoder.decode(msgspec.json.encode(given | asked)))
        except msgspec.ValidationError as error:
            raise BadRequest(explain(error), _HINT) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadRequest(f"not JSON: {error}", _LOOKS) from None

    return read


def _asked_for(fields: dict[str, msgspec.Raw]) -> dict[str, msgspec.Raw] | None:
    """What a job that `show --json --env` printed was asked for, without what the daemon made; None: it is none such.

    Raises:
        BadRequest: it was printed without its environment, and would be run with another one.
    """
    if not {"state", "created_at"} <= fields.keys():
        return None
    if "env" not in fields:
        raise BadRequest(
            "this job was printed without its environment", "print it with `queuectl show JOB --json --env`"
        )
    asked = {name: value for name, value in fields.items() if name not in _MADE}
    if bytes(fields["state"]) == b'"pending"' and "run_at" in fields:
        left = (msgspec.json.decode(fields["run_at"], type=datetime) - datetime.now(UTC)).total_seconds()
        if left > 0:
            # Rounded up, so that it does not run before its time.
            asked["delay"] = msgspec.Raw(b"%d" % math.ceil(left))
    return asked


def from_json(text: bytes, defaults: Mapping[str, Any]) -> list[JobSpec]:
    """The jobs in a JSON object, or in an array of objects.

    Raises:
        BadRequest: the message names the field, and in an array the job's place.
    """
    read = reader(defaults)
    if not text.lstrip().startswith(b"["):
        return [read(text)]
    try:
        objects = _array_decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"not JSON: {error}", _LOOKS) from None
    if not objects:
        raise BadRequest("the array holds no job", _HINT)
    jobs = []
    for place, one in enumerate(objects):
        try:
            jobs.append(read(one))
        except BadRequest as error:
            raise BadRequest(f"job {place} of the array (counted from 0): {error.message}", error.hint) from None
    return jobs
