"""The ids of workflows, and of the activities that are completed from outside: operators and gateways use them."""

from uuid import UUID, uuid5


def workflow_id(order_id: UUID) -> str:
    """The id of an order's workflow."""
    return f"order-{order_id}"


def refund_id_of(order_id: UUID, key: str) -> UUID:
    """The id of the refund of an order that a key stands for: the same key is the same refund."""
    return uuid5(order_id, key)


def refund_workflow_id(refund_id: UUID) -> str:
    """The id of a refund's workflow."""
    return f"refund-{refund_id}"


def activity_id(activity: str, round: int) -> str:
    """The id of a waiting activity of an order's workflow, as `depot.shop-2`."""
    return f"{activity}-{round}"
