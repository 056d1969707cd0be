"""`python -m jaxformers` is the `jaxformers` command."""

import sys

from jaxformers.cli.command import main

if __name__ == "__main__":
    sys.exit(main())
