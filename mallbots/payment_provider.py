"""Who takes the money: the payment provider that the settings choose."""

from collections.abc import Callable
from typing import Final

from domains.payments.provider import PaymentProvider
from domains.payments.sandbox import Sandbox
from kernel.database import Database
from kernel.errors import Misconfigured
from mallbots.settings import DatabaseName, Settings

_STRIPES_OWN: Final = frozenset({"BHD", "ISK", "JOD", "KWD", "MGA", "OMR", "TND", "UGX"})
"""Currencies of which Stripe does not count the minor units of ISO 4217, or not each of them."""


def payment_provider(settings: Settings, database: Callable[[DatabaseName], Database]) -> PaymentProvider:
    """The provider, on the databases that `database` opens by name. Raises `Misconfigured` if it has no key
    or does not count the currency as MallBots does."""
    if settings.payment_provider == "sandbox":
        return Sandbox(database("sandbox"), timeout=settings.sandbox_timeout)
    if settings.stripe_api_key is None:
        raise Misconfigured("MALLBOTS_STRIPE_API_KEY is not set: payments are to be taken by Stripe")
    if settings.currency in _STRIPES_OWN:
        raise Misconfigured(f"Stripe counts {settings.currency} in units of its own: it is not supported")
    # Only now: it takes 0.2 s to import, and many malls do without.
    from domains.payments.stripe import Stripe

    return Stripe(
        database("payments"),
        settings.stripe_api_key.get_secret_value(),
        timeout=settings.stripe_timeout,
        api_url=str(settings.stripe_api_url) if settings.stripe_api_url else None,
    )
