"""The webhook that Stripe calls: late, twice, in any order, or before it answers us."""

from typing import Annotated

from fastapi import APIRouter, Header, Request

from api.endpoints import ServicesDependency, problems
from kernel.errors import NotFound

router = APIRouter(prefix="/v1/webhooks", redirect_slashes=False)


@router.post(
    "/stripe",
    operation_id="noteStripeEvent",
    summary="What Stripe says happened to a payment",
    response_description="It is noted, was before, or does not matter",
    status_code=204,
    tags=["Webhooks"],
    responses=problems(
        {401: "The signature is not Stripe's", 404: "Payments are not taken by Stripe", 422: "This is no event"}
    ),
)
async def note_stripe_event(
    request: Request,
    services: ServicesDependency,
    stripe_signature: Annotated[str | None, Header(include_in_schema=False)] = None,
) -> None:
    """Signed by the header `Stripe-Signature`. Stripe sends an event again until it is answered with 2xx."""
    secret = services.stripe_webhook_secret
    if secret is None:
        raise NotFound("payments are not taken by Stripe")
    # Only now: Stripe's library takes 0.2 s to import, and many malls do without.
    from domains.payments.stripe import read_event

    event = read_event(await request.body(), stripe_signature, secret.get_secret_value())
    if event is not None:
        await services.payments.note_provider_event(event)
