"""Decisions, and nothing else: functions of state and `now`, without I/O and without a clock of their own.

Imported by all of the daemon, never by the worker. It touches nothing.
"""
