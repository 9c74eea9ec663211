"""The worker process. It imports the standard library and `queuectl_protocol` only, to stay small and start fast.

Imported by nobody: the pool starts it as `python -m queuectld.worker`. It touches its job, and the socket.
"""
