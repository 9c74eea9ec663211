"""Decisions, and nothing else: functions of state and `now`, without I/O and without a clock of their own."""
