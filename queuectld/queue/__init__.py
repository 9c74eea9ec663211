"""What is done to jobs inside a transaction, a file a verb; and who is told of it after the commit.

Imported by the handlers, the pool and daemon.py. It touches the store only, except for logs of jobs that it deletes.
"""
