"""The search attributes of an order's workflow, by which operators find it in the Temporal Web UI."""

from typing import Final

from temporalio.common import SearchAttributeKey

ORDER_STATUS: Final = SearchAttributeKey.for_keyword("OrderStatus")
KIOSK: Final = SearchAttributeKey.for_keyword("Kiosk")
CUSTOMER: Final = SearchAttributeKey.for_keyword("Customer")
TOTAL_CENTS: Final = SearchAttributeKey.for_int("TotalCents")
ROBOT: Final = SearchAttributeKey.for_keyword("Robot")
"""The robot that has or had the order's shopping list last."""
STUCK: Final = SearchAttributeKey.for_keyword("Stuck")
"""The activity that needs a person, while there is one; absent otherwise."""

REASON: Final = SearchAttributeKey.for_keyword("Reason")
"""Why the order did not end completed, in a word or two, as `payment_declined` or `cancelled by staff`."""

ALL: Final = (ORDER_STATUS, KIOSK, CUSTOMER, TOTAL_CENTS, ROBOT, STUCK, REASON)
