"""What a Python program imports: all of it from queuectl_client, whatever lies beside the program."""

from __future__ import annotations

import inspect
import subprocess
import sys
import typing
from pathlib import Path

import msgspec
import pytest

import queuectl_client
from queuectl_client import Client
from queuectl_client.errors import ClientError
from queuectl_client.wire.bulk import Enqueuing
from tests.harness import CHECKOUT


@pytest.mark.parametrize("name", queuectl_client.__all__)
def test_every_name_of_the_package_is_there(name: str) -> None:
    found = getattr(queuectl_client, name)
    assert isinstance(found, tuple if name.isupper() else type)


def test_every_error_is_exported() -> None:
    kinds: list[type[ClientError]] = [ClientError, *ClientError.__subclasses__()]
    for kind in kinds:
        assert getattr(queuectl_client, kind.__name__) is kind


def structs_in(annotation: object) -> set[type]:
    if inspect.isclass(annotation) and issubclass(annotation, (msgspec.Struct, Enqueuing)):
        return {annotation}
    return {kind for part in typing.get_args(annotation) for kind in structs_in(part)}


def test_everything_that_a_method_answers_with_is_exported() -> None:
    methods = [method for name, method in inspect.getmembers(Client, inspect.isfunction) if not name.startswith("_")]
    names = {**vars(sys.modules[Client.__module__]), "Enqueuing": Enqueuing}
    names["list"] = list  # in the class, it is a method
    kinds = {
        kind for method in methods for kind in structs_in(typing.get_type_hints(method, names).get("return", object))
    }
    assert len(kinds) > 8
    for kind in kinds:
        assert getattr(queuectl_client, kind.__name__) is kind


@pytest.mark.parametrize("method", ["wait", "cancel", "retry", "dlq_retry", "dlq_purge", "stop_workers"])
def test_a_string_in_the_place_of_a_list_of_ids_is_named(method: str) -> None:
    with Client("/nowhere/sock", patience=0) as client, pytest.raises(queuectl_client.BadRequest, match="'abc'"):
        getattr(client, method)("abc")


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nope'"):
        _ = queuectl_client.nope


@pytest.mark.parametrize("name", ["protocol", "errors", "messages", "jobs", "client"])
def test_a_module_of_the_users_own_beside_the_program_is_in_nobodys_way(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.py").write_text("MINE = 1\n")
    (tmp_path / "program.py").write_text(
        f"import {name}\nfrom queuectl_client import Client, NoDaemon\n"
        f"try:\n    Client('/nowhere/sock', patience=0).info()\n"
        f"except NoDaemon:\n    print({name}.MINE)\n"
    )
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py")],
        env={"PYTHONPATH": CHECKOUT}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("1\n", "")
