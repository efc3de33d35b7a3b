"""Options that many commands have."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

DEFAULT_DATA_DIR: Final = Path(".mallbots")


class Publisher(StrEnum):
    """A domain whose events are relayed and archived."""

    ORDERS = "orders"
    STORES = "stores"
    PAYMENTS = "payments"
    DEPOT = "depot"


def _use_data_dir(data_dir: Path) -> Path:
    # Through the environment it reaches whatever loads the settings.
    if str(data_dir) != os.environ.get("MALLBOTS_DATA_DIR", str(DEFAULT_DATA_DIR)):
        os.environ["MALLBOTS_DATA_DIR"] = str(data_dir)
    return data_dir.absolute()


DataDir = Annotated[
    Path,
    typer.Option(
        envvar="MALLBOTS_DATA_DIR",
        callback=_use_data_dir,
        help="Where the embedded servers keep their data.",
        file_okay=False,
    ),
]
