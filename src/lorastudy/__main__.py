"""`python -m lorastudy` is the command line."""

from lorastudy.cli import main

if __name__ == "__main__":
    main()
