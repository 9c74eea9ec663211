"""What is done to this machine: daemons in the background, units of systemd, files that shells read.

Imported by `commands` and `cli`. It touches processes and files of the user's, or of the system's; it asks the daemon.
"""
