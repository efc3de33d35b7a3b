"""What is sent to robots, made of what Depot says."""

from collections.abc import Iterable
from uuid import UUID

from api.generated.mallbots.automation.v1 import automation_pb2 as pb
from domains.depot.messages import ListView, PickedItem, Recalled
from kernel.errors import InvalidInput, MallError, Unavailable
from kernel.messages import Pieces


def shopping_list(view: ListView, traceparent: str) -> pb.ToRobot:
    """Shop this."""
    stops = [
        pb.Stop(number=number, store=stop.store, items=map(_item, stop.items))
        for number, stop in enumerate(view.stops, 1)
    ]
    return pb.ToRobot(list=pb.ShoppingList(order_id=str(view.order_id), stops=stops, traceparent=traceparent))


def deliver(order_id: UUID) -> pb.ToRobot:
    """There is nothing more to pick."""
    return pb.ToRobot(deliver=pb.Deliver(order_id=str(order_id)))


def wait(order_id: UUID) -> pb.ToRobot:
    """There will be word on what is missing."""
    return pb.ToRobot(wait=pb.Wait(order_id=str(order_id)))


def recall(recalled: Recalled) -> pb.ToRobot:
    """The list is not the robot's any more."""
    return pb.ToRobot(
        recall=pb.Recall(
            order_id=str(recalled.order_id), reason=recalled.reason, carried=_carried(recalled.carried)
        )
    )


def refused(error: MallError, order_id: str = "") -> pb.ToRobot:
    """A message about this order, if about any, was not taken."""
    retry = isinstance(error, Unavailable)
    return pb.ToRobot(refused=pb.Refused(code=error.code, message=error.message, retry=retry, order_id=order_id))


def goodbye(reason: str) -> pb.ToRobot:
    """The stream ends."""
    return pb.ToRobot(goodbye=pb.Goodbye(reason=reason))


def read_order_id(order_id: str) -> UUID:
    """The id that a robot sent. Raises `InvalidInput`."""
    try:
        return UUID(order_id)
    except ValueError:
        raise InvalidInput(f"{order_id!r:.50} is no order's id", "order_id") from None


def _item(item: PickedItem) -> pb.Item:
    return pb.Item(
        sku=item.sku,
        name=item.name,
        quantity=item.quantity,
        reported=item.picked is not None,
        picked=item.picked or 0,
        missing=item.missing or 0,
    )


def _carried(pieces: Iterable[Pieces]) -> list[pb.Carried]:
    return [pb.Carried(sku=one.sku, quantity=one.quantity) for one in pieces]
