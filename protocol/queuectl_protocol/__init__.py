"""The language that queuectld, its workers and its clients speak. No I/O in here."""
