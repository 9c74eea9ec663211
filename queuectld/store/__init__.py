"""Where the queue is kept: the interface in base.py, who writes and who reads, and a package for each store.

Imported by all of the daemon; a concrete store by daemon.py only. It touches databases and nothing else.
"""
