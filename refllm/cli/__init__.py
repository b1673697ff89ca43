"""Floor 5: the command line. Each command is a file of its own, imported when it is asked for."""

import sys


def main() -> None:
    """The program `refllm`."""
    from refllm.cli.doors import run

    sys.exit(run(sys.argv[1:]))
