"""The notifier of a mall with a webhook: a signed POST, as Standard Webhooks (standardwebhooks.com) has it.

The body is `{"type": "order.ready", "timestamp": …, "data": {…}}`. The receiver checks the signature with the
secret that both have, and drops what comes a second time by `webhook-id`.
"""

import asyncio
from typing import Final

import httpx
from pydantic_core import to_json
from standardwebhooks import Webhook

from consumers.notifications.messages import Notification
from consumers.notifications.port import Undeliverable
from kernel.errors import Unavailable
from kernel.ids import now

_DATA: Final = {"order_id", "customer", "kiosk", "pickup_code", "text"}
_TRIED_AGAIN: Final = (httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_MANY_REQUESTS)


class WebhookNotifier:
    """Posts each notification to `url`, signed with `secret` (`whsec_…`). A whole request takes `timeout` seconds
    at most."""

    def __init__(self, client: httpx.AsyncClient, url: str, secret: str, *, timeout: float) -> None:
        self._client = client
        self._url = url
        self._webhook = Webhook(secret)
        self._timeout = timeout

    async def notify(self, notification: Notification) -> None:
        """As `Notifier.notify`. A status of 2xx means taken; one of 4xx means never, except for 408 and 429;
        everything else, redirects too, means later."""
        body = to_json(
            {
                "type": f"order.{notification.kind}",
                "timestamp": notification.created_at,
                "data": notification.model_dump(include=_DATA),
            }
        ).decode()
        status = await self._post(str(notification.id), body)
        if httpx.codes.is_success(status):
            return
        told = f"the webhook answered {status} {httpx.codes.get_reason_phrase(status)}".rstrip()
        if httpx.codes.is_client_error(status) and status not in _TRIED_AGAIN:
            raise Undeliverable(told)
        raise Unavailable(told)

    async def _post(self, notification_id: str, body: str) -> int:
        # Signed anew each time: receivers refuse what was signed more than minutes ago.
        signed_at = now()
        headers = {
            "content-type": "application/json",
            "user-agent": "MallBots",
            "webhook-id": notification_id,
            "webhook-timestamp": str(int(signed_at.timestamp())),
            "webhook-signature": self._webhook.sign(notification_id, signed_at, body),
        }
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._client.stream(
                    "POST",
                    self._url,
                    content=body,
                    headers=headers,
                    follow_redirects=False,
                    timeout=self._timeout,
                ) as response,
            ):
                return response.status_code
        except TimeoutError:
            raise Unavailable(f"the webhook did not answer within {self._timeout:g} s") from None
        except httpx.HTTPError as error:
            raise Unavailable(f"the webhook does not answer ({type(error).__name__})") from error
