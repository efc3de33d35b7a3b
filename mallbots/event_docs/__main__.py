"""`python -m mallbots.event_docs DIRECTORY` writes both documents there. Developers run it by `make docs`."""

import sys
from pathlib import Path

from mallbots.event_docs import documents

if __name__ == "__main__":
    directory = Path(sys.argv[1])
    for name, text in documents().items():
        (directory / name).write_text(text)
