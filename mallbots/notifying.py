"""The senders of notifications, and what they send through: the webhook of the settings, or the log."""

import base64
import binascii
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import httpx

from consumers.notifications.log import LogNotifier
from consumers.notifications.port import Notifier
from consumers.notifications.sender import Sender
from consumers.notifications.webhook import WebhookNotifier
from kernel.database import Database
from kernel.errors import Misconfigured
from mallbots.settings import Settings

_SETTING: Final = "MALLBOTS_NOTIFICATION_WEBHOOK_SECRET"
_PREFIX: Final = "whsec_"
_SHORTEST_SECRET, _LONGEST_SECRET = 24, 64  # as Standard Webhooks has it


async def send_notifications(settings: Settings, database: Database) -> None:
    """Send the notifications of a database until cancelled. Raises `Misconfigured`."""
    async with notifier(settings) as chosen:
        await Sender(database, settings.nats_address(), chosen).run()


@asynccontextmanager
async def notifier(settings: Settings) -> AsyncIterator[Notifier]:
    """The notifier that the settings ask for. Raises `Misconfigured` if its secret is missing or is none."""
    if settings.notification_webhook_url is None:
        yield LogNotifier()
        return
    secret = _secret(settings)
    async with httpx.AsyncClient() as client:
        url = str(settings.notification_webhook_url)
        yield WebhookNotifier(client, url, secret, timeout=settings.notification_timeout)


def _secret(settings: Settings) -> str:
    if settings.notification_webhook_secret is None:
        raise Misconfigured(
            f"{_SETTING} is not set, but MALLBOTS_NOTIFICATION_WEBHOOK_URL is: a receiver must be able to tell "
            "our notifications from forged ones"
        )
    secret = settings.notification_webhook_secret.get_secret_value()
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (ValueError, binascii.Error):
        key = b""
    if not secret.startswith(_PREFIX) or not _SHORTEST_SECRET <= len(key) <= _LONGEST_SECRET:
        raise Misconfigured(
            f"{_SETTING} must be {_PREFIX} and {_SHORTEST_SECRET} to {_LONGEST_SECRET} random bytes in Base64: "
            f'`echo "{_PREFIX}$(openssl rand -base64 32)"` makes one'
        )
    return secret
