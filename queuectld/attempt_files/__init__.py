"""What workers and the daemon tell each other through the state directory: logs, exit records, the daemon's address.

Imported by the daemon and the worker, owned by neither. It touches files that a job can reach; standard library only.
"""
