"""Where the queue is kept: the interface in base.py, a package for each store."""
