"""The notifier of a mall without a webhook: the log."""

import logging

from consumers.notifications.messages import Notification

_log = logging.getLogger(__name__)


class LogNotifier:
    """Writes each notification as one line to the log."""

    async def notify(self, notification: Notification) -> None:
        """As `Notifier.notify`; it never fails."""
        _log.info(
            "to %s: %s (%s, order %s)",
            notification.customer,
            notification.text,
            notification.kind,
            notification.order_id,
        )
