"""Ids that are made for jobs which were given none."""

from __future__ import annotations

import re
import subprocess
import sys

from queuectl_protocol.ids import ALPHABET, BEGINNING, LENGTH, RUN, Ids
from tests.harness import ROOT

IDS = Ids()
RUNS = 150

AFTER_A_FORK = """
import os
from queuectl_protocol.ids import Ids
ids = Ids()
ids.make()
child = os.fork()
os.write(1, f"{ids.make()}\\n".encode())
if child:
    os.waitpid(child, 0)
"""


def _runs() -> list[list[str]]:
    before = IDS.make()
    while (first := IDS.make()).startswith(before[:BEGINNING]):
        pass  # what is left of the run that others have begun
    ids = [first, *(IDS.make() for _ in range(RUNS * RUN - 1))]
    return [ids[place : place + RUN] for place in range(0, len(ids), RUN)]


def test_an_id_is_short_lowercase_and_has_no_look_alikes() -> None:
    ids = [IDS.make() for _ in range(5000)]
    assert len(set(ids)) == len(ids)
    for made in ids:
        assert re.fullmatch(f"[{ALPHABET}]{{{LENGTH}}}", made)
    assert not set(ALPHABET) & set("0o1ilu")


def test_the_ids_of_a_run_begin_alike_and_those_of_another_run_differently() -> None:
    beginnings = [{made[:BEGINNING] for made in run} for run in _runs()]
    assert all(len(beginning) == 1 for beginning in beginnings)
    # All alike, of more than a hundred, is what chance does not do in the age of the universe.
    assert len(set.union(*beginnings)) > 1


def test_every_letter_of_the_alphabet_is_as_likely_as_any_other() -> None:
    text = "".join(run[0][:BEGINNING] + "".join(made[BEGINNING:] for made in run) for run in _runs())
    expected = len(text) / len(ALPHABET)
    for letter in ALPHABET:
        # Six standard deviations: one false alarm in ten million runs.
        assert abs(text.count(letter) - expected) < 6 * expected**0.5


def test_two_processes_that_were_one_make_different_ids() -> None:
    done = subprocess.run(
        [sys.executable, "-c", AFTER_A_FORK], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True, timeout=60
    )
    parents, childs = done.stdout.split()
    assert parents != childs
