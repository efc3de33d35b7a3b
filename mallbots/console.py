"""What people see: lines and tables on standard output, on a terminal or in a file."""

import os
import sys
from contextlib import suppress
from typing import Final

from rich.console import Console
from rich.text import Text

_WIDE: Final = 200  # for tables that nobody looks at on a screen, so that no address is cut


class MallConsole(Console):
    """Standard output. What reads it may go away at any time; that only makes us quiet."""

    def __init__(self) -> None:
        super().__init__(highlight=False, width=None if sys.stdout.isatty() else _WIDE)

    def say(self, line: str) -> None:
        """Prints one line as it is, and does not break it."""
        with suppress(OSError):
            self.print(Text(line), soft_wrap=True)

    def on_broken_pipe(self) -> None:
        """Goes on without output, where rich would end the program in the middle of its work."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def complain(message: str) -> None:
    """Prints what went wrong to standard error, in red on a terminal."""
    Console(stderr=True, highlight=False).print(Text(message, style="red"), soft_wrap=True)
