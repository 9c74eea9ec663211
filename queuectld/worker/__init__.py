"""The worker process. It imports the standard library and `queuectl_protocol` only, to stay small and start fast."""
