"""The command `fmnist`, and `python -m fmnist`."""

import os
import signal
from types import FrameType


def main() -> None:
    """Run the command line, which takes a moment to load: until then Ctrl-C just ends the process."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # and not ignored, as it is in the background of a script
        signal.signal(signal.SIGINT, _leave)
    from fmnist import cli

    signal.signal(signal.SIGINT, before)
    cli.main()


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(130)


if __name__ == "__main__":
    main()
