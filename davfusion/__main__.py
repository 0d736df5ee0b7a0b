"""`python -m davfusion` and the `davfusion` command."""

from davfusion.cli import main

if __name__ == "__main__":
    main()
