"""The workers: starting them, handing them attempts, watching them, ending and replacing them.

Imported by the handlers and daemon.py. It touches processes, and changes the store only by operations of `queue`.
"""
