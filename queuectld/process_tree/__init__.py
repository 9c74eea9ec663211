"""Process trees: who belongs to an attempt, and how to end all of them with proof.

Imported by the daemon and the worker, owned by neither. It touches /proc, signals, locks and cgroups.
"""
