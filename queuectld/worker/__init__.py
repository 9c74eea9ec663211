"""The worker process. It imports the standard library and `protocol` only, so that it stays small and starts fast."""
