"""What is typed, with click: options, arguments, programs after `--`, and what the shell completes in them.

Imported by `commands` and `cli`. It touches the environment, files that are named, and the daemon to complete ids.
"""
