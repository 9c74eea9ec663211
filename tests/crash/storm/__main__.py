"""`make torture`: a long kill storm. SEED= repeats one, KILLS= says how many; it says what it did.

Exit status: 0 all guarantees held; 1 one did not, and the evidence is kept.
"""

from __future__ import annotations

import argparse
import contextlib
import secrets
import sys

from tests.crash.storm.run import a_group, run_storm


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash.storm", description=__doc__)
    parser.add_argument("--seed", type=int, help="of a run to repeat; otherwise a new one")
    parser.add_argument("--kills", type=int, default=500, help="SIGKILLs to the daemon and its workers (default 500)")
    parser.add_argument("--containment", choices=["cgroup", "subreaper"], help="otherwise an even seed means cgroups")
    given = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if given.seed is None else given.seed
    with_group = given.containment == "cgroup" if given.containment else seed % 2 == 0
    print(f"kill storm with seed {seed}, {given.kills} kills: may take {given.kills // 60 + 1} minutes", flush=True)
    with a_group() if with_group else contextlib.nullcontext() as group:
        if with_group and group is None:
            print("(no cgroup v2 directory can be made here: without groups)")
        report = run_storm(seed, given.kills, groups=group)
    print(report.text)
    if report.violations:
        print(f"{len(report.violations)} VIOLATIONS; the evidence is kept in {report.directory}")
        print("\n".join(f"  {violation}" for violation in report.violations))
        return 1
    print("  verdict   all guarantees held")
    return 0


if __name__ == "__main__":
    sys.exit(main())
