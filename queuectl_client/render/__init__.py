"""What is shown: tables and colours for people, JSON Lines for programs, remarks beside the answer.

Imported by all that prints. It touches standard output and standard error, and nothing else.
"""
