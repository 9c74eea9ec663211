"""What is done to jobs inside a transaction, and who is told of it after the commit.

Imported by the handlers, the pool and daemon.py. It touches the store only, except for logs of jobs that it deletes.
"""
