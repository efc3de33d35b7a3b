"""Who takes the money: the payment provider that the settings choose."""

from collections.abc import Callable

from domains.payments.provider import PaymentProvider
from domains.payments.sandbox import Sandbox
from domains.payments.stripe import Stripe
from kernel.database import Database
from kernel.errors import Misconfigured
from mallbots.settings import DatabaseName, Settings


def payment_provider(settings: Settings, database: Callable[[DatabaseName], Database]) -> PaymentProvider:
    """The provider, on the databases that `database` opens by name. Raises `Misconfigured` if it has no key."""
    if settings.payment_provider == "sandbox":
        return Sandbox(database("sandbox"), timeout=settings.sandbox_timeout)
    if settings.stripe_api_key is None:
        raise Misconfigured("MALLBOTS_STRIPE_API_KEY is not set: payments are to be taken by Stripe")
    return Stripe(
        database("payments"),
        settings.stripe_api_key.get_secret_value(),
        timeout=settings.stripe_timeout,
        api_url=str(settings.stripe_api_url) if settings.stripe_api_url else None,
    )
