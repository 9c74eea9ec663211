"""What one OS process of the daemon holds: directory, lock, socket, clock, disk space, threads, its own log, systemd.

Imported by all of the daemon above it, never by the worker. It touches files, sockets and the environment, no store.
"""
