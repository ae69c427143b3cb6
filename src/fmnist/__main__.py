"""The command `fmnist`, and `python -m fmnist`."""

import os
import signal
from types import FrameType


def main() -> None:
    """Run the command line. Until it is imported, Ctrl-C ends the process without a traceback."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # and not ignored, as in the background of a script
        signal.signal(signal.SIGINT, _exit)
    from fmnist.cli import main as cli

    signal.signal(signal.SIGINT, before)
    cli.main()


def _exit(number: int, frame: FrameType | None) -> None:
    os._exit(130)


if __name__ == "__main__":
    main()
