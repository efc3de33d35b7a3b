"""`python -m mallbots` is the command `mallbots`."""

from mallbots.cli import main

if __name__ == "__main__":
    main()
