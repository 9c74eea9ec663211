"""Bytes in and out: peers, their requests in order, what they may have the daemon keep, and their hand-over.

Imported by daemon.py only. It touches sockets, and is given the handlers; it knows no store and no worker.
"""
