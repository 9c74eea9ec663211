"""`python -m queuectld`."""

from queuectld.cli import main

if __name__ == "__main__":
    main()
