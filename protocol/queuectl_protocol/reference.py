"""Writes docs/protocol.md from the tables and structs of this package.

`python -m queuectl_protocol.reference > docs/protocol.md` brings it up to date; a test holds the checked-in page
against `render()`. What a field means is taken from the docstring under it, else from the one under the named type
that it is annotated with.
"""

from __future__ import annotations

import ast
import enum
import functools
import inspect
import itertools
import json
import re
import sys
from collections.abc import Sequence
from types import ModuleType

from msgspec import Struct
from msgspec import inspect as introspect

from queuectl_protocol import jobs, messages
from queuectl_protocol.errors import KINDS
from queuectl_protocol.framing import MAX_ID, PATTERNS
from queuectl_protocol.lines import MAX_LINE
from queuectl_protocol.messages import MAX_INTEGER, METHODS, NOTIFICATIONS, Method
from queuectl_protocol.version import PROTOCOL

EXAMPLES: dict[str, str] = {
    "server.info": "{}",
    "server.backup": '{"path": "/var/backups/queue.db"}',
    "job.enqueue": '{"jobs": [{"id": "backup-1", "command": "tar -czf /tmp/etc.tgz /etc", "timeout": 600}]}',
    "job.get": '{"id": "backup-1"}',
    "job.list": '{"state": "failed", "limit": 20}',
    "job.cancel": '{"ids": ["backup-1"]}',
    "job.retry": '{"ids": ["backup-1"]}',
    "job.wait": '{"ids": ["backup-1"], "timeout": 60}',
    "job.logs": '{"id": "backup-1", "tail": 10}',
    "dlq.list": '{"limit": 20}',
    "dlq.retry": '{"all": true}',
    "dlq.purge": '{"ids": ["backup-1"]}',
    "config.list": "{}",
    "config.get": '{"key": "backoff_base"}',
    "config.set": '{"key": "backoff_base", "value": 1.5}',
    "config.unset": '{"key": "backoff_base"}',
    "worker.list": "{}",
    "worker.start": '{"count": 2}',
    "worker.stop": '{"now": true}',
    "status.get": "{}",
    "worker.attach": '{"worker": "w1"}',
    "worker.finish": '{"ended": {"job": 1, "attempt": 1, "token": "f3a9", "outcome": "completed", '
    '"ended_at": 1700000000.5, "exit_code": 0}}',
    "worker.heartbeat": "{}",
}
"""Parameters to show for each method."""

_INTRODUCTION = f"""\
<!-- Made from the code that decodes the messages: `python -m queuectl_protocol.reference > docs/protocol.md` -->

# The protocol

What `queuectl` says to `queuectld`, any program can say: [JSON-RPC 2.0](https://www.jsonrpc.org/specification), one
object a line, over a Unix stream socket. `socat` and `jq` are enough. This is protocol number {PROTOCOL}; a client asks
[`server.info`](#serverinfo) and does not go on if the daemon speaks another.

## A first conversation

The socket is `$XDG_RUNTIME_DIR/queuectl/queuectl.sock` for a user's own daemon, `/run/queuectl/queuectl.sock` for the
system's, or wherever `queuectld --socket` put it.

```sh
sock="$XDG_RUNTIME_DIR/queuectl/queuectl.sock"

# How many jobs are there, by state?
echo '{{"jsonrpc":"2.0","id":1,"method":"status.get"}}' | socat -t 5 - "UNIX-CONNECT:$sock" | jq .result.counts

# Enqueue two jobs, both or none
jobs='[{{"command":"date"}}, {{"argv":["sleep","1"]}}]'
echo '{{"jsonrpc":"2.0","id":1,"method":"job.enqueue","params":{{"jobs":'"$jobs"'}}}}' |
  socat -t 5 - "UNIX-CONNECT:$sock" | jq -r '.result.ids[]'

# Two requests at once; the answers carry the ids of their requests
printf '%s\\n' '{{"jsonrpc":"2.0","id":"a","method":"config.get","params":{{"key":"backoff_base"}}}}' \\
               '{{"jsonrpc":"2.0","id":"b","method":"job.list","params":{{"state":"dead","limit":5}}}}' |
  socat -t 5 - "UNIX-CONNECT:$sock" | jq -c '{{id, result, error}}'
```

A request and its answer, a request and its refusal:

```json
{{"jsonrpc":"2.0","id":1,"method":"worker.start","params":{{"count":2}}}}
{{"jsonrpc":"2.0","id":1,"result":{{"ids":["w1","w2"],"desired":2}}}}

{{"jsonrpc":"2.0","id":2,"method":"worker.start","params":{{"count":0}}}}
{{"jsonrpc":"2.0","id":2,"error":{{"code":-32602,"message":"`count`: expected a whole number, at least 1",
  "data":{{"kind":"invalid_params"}}}}}}
```

## Rules

- **Lines.** A message is one JSON object in UTF-8 and a newline (`\\n`; a `\\r` before it does no harm). A line to the
  daemon is at most {MAX_LINE:,} bytes long, its newline not counted. A longer one is answered with `too_large` as
  soon as the limit is passed, and dropped up to its newline; the connection stays usable. What the daemon answers may
  be longer. Blank lines are passed over.
- **Requests** have `jsonrpc` (`"2.0"`), `method`, `params` (an object; left out, it counts as empty) and `id`: a string
  of at most {MAX_ID} characters, a number (64 bits if it is whole) or null. Other members are passed over. Parameters
  go by name; arrays of parameters and batches (an array of requests) are refused, since requests can be pipelined.
- **Pipelining.** Send as many requests as you like without waiting. Each reply carries its request's `id`; replies come
  in any order, so a slow `job.wait` holds nothing up.
- **Notifications.** A request without an `id` is carried out and never answered, not even with an error. One that can't
  be read as a request at all is answered, with `"id": null`, since nobody can tell what it was.
- **Unknown fields** of parameters are refused, so that a misspelt one is not ignored. A client passes over fields of
  answers that it does not know: a newer daemon may say more.
- **Durability.** The reply to a request that changes something is sent when the change is on disk.
- **Sending again.** After a lost connection, a request may be sent again unless its method says otherwise. For
  `job.enqueue` that is safe only if each job has an `id`.
- **Errors** have the code and the message of JSON-RPC, and in `error.data` a stable word `kind` to decide by, and often
  a `hint` for a person. [All kinds](#errors).
- **Times** in answers are RFC 3339 in UTC. Durations are seconds. Numbers are JSON's: NaN and infinity do not exist.
- **Who may connect.** The daemon's own user, root, and members of the socket's group.
"""

_NOT_REPEATABLE = """\
After a lost connection it is not known whether it was carried out: look before sending it again.
"""

_WORKERS = """\
A worker is a client like any other, which the daemon started itself. These methods answer everyone else with
`forbidden`. They are no stable interface: a worker and its daemon are of the same version.
"""


def render() -> str:
    """The whole page."""
    public = {name: method for name, method in METHODS.items() if not method.workers_only}
    internal = {name: method for name, method in METHODS.items() if method.workers_only}
    shared = _shared_structs(public, {})
    inner = [kind for kind in _shared_structs(internal, NOTIFICATIONS) if kind not in shared]
    words = [found for kind in shared for found in _enums(kind)]
    parts = [
        _INTRODUCTION,
        "## Methods\n",
        _table(
            ("method", "what it does"),
            [(f"[`{name}`]({_anchor(name)})", method.summary) for name, method in METHODS.items()],
        ),
        *(_method(name, method, shared) for name, method in public.items()),
        "## Objects\n",
        *(_object(kind) for kind in shared),
        *(_words(kind) for kind in dict.fromkeys(words)),
        "## For workers only\n",
        _WORKERS,
        *(_method(name, method, []) for name, method in internal.items()),
        "### What the daemon tells a worker\n",
        "Notifications, sent without being asked and not answered.\n",
        *(_notification(name, kind) for name, kind in NOTIFICATIONS.items()),
        "### What they are made of\n",
        *(_object(kind, level=4) for kind in inner),
        "## Errors\n",
        _table(
            ("kind", "code", "meaning"), [(f"`{kind.word}`", str(kind.code), kind.meaning) for kind in KINDS.values()]
        ),
    ]
    return "\n".join(parts)


def _method(name: str, method: Method, shared: list[type[Struct]]) -> str:
    params = json.loads(EXAMPLES[name])
    request: dict[str, object] = {"jsonrpc": "2.0"}
    if method.result is not None:
        request["id"] = 1
    request["method"] = name
    if params:
        request["params"] = params
    lines = [f"### {name}\n", f"{method.summary}\n", f"```json\n{json.dumps(request)}\n```\n"]
    if _fields(method.params):
        lines += [note + "\n"] if (note := _own_doc(method.params)) else []
        lines += ["Parameters:\n", _field_table(method.params, with_default=True)]
    else:
        lines.append("No parameters.\n")
    if method.result is None:
        lines.append("No answer: it is sent as a notification.\n")
    elif method.result in shared:
        lines.append(f"Answers with {_link(method.result)}.\n")
    else:
        lines += ["Answers with:\n", _field_table(method.result, with_default=False)]
    if method.result is not None and not method.repeatable:
        lines.append(_NOT_REPEATABLE)
    return "\n".join(lines)


def _object(kind: type[Struct], level: int = 3) -> str:
    table = _field_table(kind, with_default=kind is jobs.JobSpec)
    return f"{'#' * level} {kind.__name__}\n\n{_own_doc(kind)}\n\n{table}"


def _words(kind: type[enum.Enum]) -> str:
    rows = [(f"`{word}`", note) for word, note in _member_notes(kind).items()]
    return f"### {kind.__name__}\n\n{_own_doc(kind)}\n\n{_table(('word', 'meaning'), rows)}"


def _notification(name: str, kind: type[Struct]) -> str:
    lines = [f"#### {name}\n"]
    if note := _own_doc(kind):
        lines.append(f"{note}\n")
    lines.append(_field_table(kind, with_default=False) if _fields(kind) else "No parameters.\n")
    return "\n".join(lines)


# --- structs --------------------------------------------------------------------------------------------------------


def _fields(kind: type[Struct]) -> tuple[introspect.Field, ...]:
    info = introspect.type_info(kind)
    assert isinstance(info, introspect.StructType)  # noqa: S101 - what msgspec says of every Struct
    return info.fields


def _field_table(kind: type[Struct], *, with_default: bool) -> str:
    docs = _field_docs(kind)
    rows: list[tuple[str, ...]] = []
    for field in _fields(kind):
        default = (_default(field),) if with_default else ()
        rows.append((f"`{field.encode_name}`", _type(field.type), *default, docs.get(field.name, "")))
    return _table(("field", "type", *(("default",) if with_default else ()), "meaning"), rows)


def _default(field: introspect.Field) -> str:
    if field.required:
        return "required"
    return f"`{json.dumps(field.default)}`"


def _type(info: introspect.Type) -> str:
    match info:
        case introspect.UnionType(types=types):
            null = [part for part in types if isinstance(part, introspect.NoneType)]
            others = [_type(part) for part in types if not isinstance(part, introspect.NoneType)]
            if {"integer", "number"} <= set(others):
                others.remove("integer")
            return " or ".join([*others, *("null" for _ in null)])
        case introspect.IntType(ge=low, le=high) | introspect.FloatType(ge=low, le=high):
            name = "integer" if isinstance(info, introspect.IntType) else "number"
            if low is None or high is None:
                return name
            return f"{name} ({_figure(low)} to {_figure(high)})"
        case introspect.StrType(min_length=least, max_length=most, pattern=pattern):
            length = f"{least} to {most} characters" if least else f"at most {most} characters" if most else ""
            limits = ": ".join(
                part for part in (length, PATTERNS.get(pattern, f"`{pattern}`") if pattern else "") if part
            )
            return f"string ({limits})" if limits else "string"
        case introspect.ListType(item_type=item, min_length=least, max_length=most):
            name, space, limits = _type(item).partition(" ")
            length = f" ({_figure(least)} to {_figure(most)})" if least and most else ""
            return f"array{length} of {name if name.startswith('[') else name + 's'}{space}{limits}"
        case introspect.DictType(key_type=key, value_type=value):
            return f"object ({_type(key)} → {_type(value)})"
        case introspect.EnumType(cls=cls):
            return _link(cls)
        case introspect.StructType(cls=cls):
            return _link(cls)
        case introspect.DateTimeType():
            return "time"
        case introspect.BoolType():
            return "boolean"
        case _:
            raise TypeError(f"the reference has no words for {info}")


def _figure(number: float) -> str:
    return "2^63 - 1" if number == MAX_INTEGER else f"{number:,.15g}"


def _shared_structs(methods: dict[str, Method], notifications: dict[str, type[Struct]]) -> list[type[Struct]]:
    """Structs that need a section of their own: those inside of others."""
    found: dict[type[Struct], None] = {}

    def visit(info: introspect.Type, *, inside: bool) -> None:
        match info:
            case introspect.StructType(cls=cls, fields=fields):
                if inside:
                    found.setdefault(cls)
                for field in fields:
                    visit(field.type, inside=True)
            case introspect.UnionType(types=types):
                for part in types:
                    visit(part, inside=inside)
            case introspect.ListType(item_type=item):
                visit(item, inside=inside)
            case _:
                pass

    kinds = [kind for method in methods.values() for kind in (method.params, method.result) if kind is not None]
    for kind in (*kinds, *notifications.values()):
        visit(introspect.type_info(kind), inside=False)
    return list(found)


def _enums(kind: type[Struct]) -> list[type[enum.Enum]]:
    """The enumerations that fields of `kind` have for a type."""
    found: dict[type[enum.Enum], None] = {}
    for field in _fields(kind):
        types = field.type.types if isinstance(field.type, introspect.UnionType) else (field.type,)
        for part in types:
            if isinstance(part, introspect.EnumType):
                found.setdefault(part.cls)
    return list(found)


# --- what the source says -------------------------------------------------------------------------------------------


@functools.cache
def _class_bodies(module: ModuleType) -> dict[str, ast.ClassDef]:
    tree = ast.parse(inspect.getsource(module))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


@functools.cache
def _alias_docs() -> dict[str, str]:
    """Docstrings under the named types of both modules, such as JobRef."""
    docs = {}
    for module in (jobs, messages):
        body = ast.parse(inspect.getsource(module)).body
        for node, after in itertools.pairwise(body):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and (doc := _docstring(after)):
                docs[node.targets[0].id] = doc
    return docs


def _field_docs(kind: type[Struct]) -> dict[str, str]:
    docs = {}
    body = _class_bodies(sys.modules[kind.__module__])[kind.__name__].body
    for node, after in zip(body, [*body[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        names = [part.id for part in ast.walk(node.annotation) if isinstance(part, ast.Name)]
        doc = _docstring(after) or next((_alias_docs()[name] for name in names if name in _alias_docs()), "")
        docs[node.target.id] = _wire_words(doc)
    return docs


def _docstring(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return " ".join(node.value.value.split())
    return ""


def _own_doc(kind: type) -> str:
    """The class's own docstring, without its sections for programmers."""
    node = _class_bodies(sys.modules[kind.__module__])[kind.__name__]
    doc = (ast.get_docstring(node) or "").partition("\n\nRaises:")[0]
    return _wire_words(doc)


def _member_notes(kind: type[enum.Enum]) -> dict[str, str]:
    """Each word, and the comment behind it."""
    lines = inspect.getsource(kind)
    return {
        str(member.value): found[1].strip() if (found := re.search(rf'"{member.value}"\s*#(.*)', lines)) else ""
        for member in kind
    }


def _wire_words(doc: str) -> str:
    """Python's constants as JSON's."""
    for python, wire in (("None", "null"), ("True", "true"), ("False", "false")):
        doc = re.sub(rf"\b{python}\b", wire, doc)
    return doc


# --- Markdown -------------------------------------------------------------------------------------------------------


def _anchor(heading: str) -> str:
    """As GitHub makes it."""
    return "#" + re.sub(r"[^a-z0-9_-]", "", heading.lower())


def _link(kind: type) -> str:
    return f"[{kind.__name__}]({_anchor(kind.__name__)})"


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


if __name__ == "__main__":
    sys.stdout.write(render())
