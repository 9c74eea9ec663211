"""`python -m queuectld.worker`: what the supervisor starts."""

from queuectld.worker.main import main

if __name__ == "__main__":
    main()
