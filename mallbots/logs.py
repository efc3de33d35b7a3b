"""Logging of every process: one line a record, to standard error."""

import logging

from mallbots.settings import Settings


def configure_logging(settings: Settings) -> None:
    """Log at the level that the settings ask for; libraries at `warning` and above."""
    logging.basicConfig(format="%(asctime)s %(levelname)-7s %(name)s %(message)s", level=logging.WARNING)
    for ours in ("mallbots", "api", "activities", "workflows", "domains", "events", "consumers", "clients"):
        logging.getLogger(ours).setLevel(settings.log_level.upper())
