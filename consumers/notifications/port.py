"""The port to the customer: whatever can carry a notification implements it."""

from typing import ClassVar, Protocol

from consumers.notifications.messages import Notification
from kernel.errors import MallError


class Undeliverable(MallError):
    """The notification will never be taken, however often it is tried."""

    code: ClassVar[str] = "undeliverable"


class Notifier(Protocol):
    """Carries notifications to customers."""

    async def notify(self, notification: Notification) -> None:
        """Tell the customer, within half a minute. The same notification may come twice: its id tells.

        Raises `Undeliverable` if that will never work. After any other error, which is `Unavailable` if it was
        foreseen, the notification comes again.
        """
