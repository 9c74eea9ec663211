"""`python -m queuectld`."""

from queuectld.entry import main

if __name__ == "__main__":
    main()
