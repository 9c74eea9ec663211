"""The direct way: the commands that people call in loops, without click, msgspec, rich and pathlib.

Imported by `entry` only. It touches what the commands touch; whatever it does not understand is left to `cli`.
"""
