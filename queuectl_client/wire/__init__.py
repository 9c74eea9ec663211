"""The way to the daemon: finding it, trusting it, a connection, and many requests on it at once.

Imported by `client`, `system` and `commands`. It touches sockets and the daemon's state directory, no terminal.
"""
