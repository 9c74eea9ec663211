"""Jobs as they are asked for: from fields, from JSON text, from files of it, in batches.

Imported by everything in the client above it. It touches nothing but a descriptor that it is given to read from.
"""
