"""What each subcommand does, a file a verb.

Imported by `cli` only, which imports the one that was called. It touches the terminal, and the queue through `Client`.
"""
