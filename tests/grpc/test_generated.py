"""The code that is made of the gRPC contracts."""

import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from google.protobuf.descriptor import EnumDescriptor

from api.generated.mallbots.depot.v1 import depot_pb2
from api.generated.mallbots.orders.v1 import orders_pb2
from api.generated.mallbots.payments.v1 import payments_pb2
from domains.depot.messages import ListStatus, RobotStatus
from domains.orders.messages import OrderStatus
from domains.payments.messages import PaymentStatus, SettlementMethod
from kernel.messages import IfMissing, PaymentMethod

ROOT = Path(__file__).parents[2]


def test_the_committed_code_is_that_of_the_contracts(tmp_path: Path) -> None:
    subprocess.run((sys.executable, "proto/generate.py", tmp_path), cwd=ROOT, check=True)
    assert _code(tmp_path) == _code(ROOT / "api" / "generated"), "run `make proto`"


@pytest.mark.parametrize(
    ("enumeration", "values"),
    [
        (orders_pb2.OrderStatus, OrderStatus),
        (orders_pb2.PaymentMethod, PaymentMethod),
        (orders_pb2.IfMissing, IfMissing),
        (orders_pb2.Settlement, SettlementMethod),
        (payments_pb2.PaymentStatus, PaymentStatus),
        (payments_pb2.PaymentMethod, PaymentMethod),
        (payments_pb2.Settlement, SettlementMethod),
        (depot_pb2.ListStatus, ListStatus),
        (depot_pb2.RobotStatus, RobotStatus),
    ],
)
def test_every_value_of_the_domains_can_be_told(enumeration: Any, values: Any) -> None:
    described: EnumDescriptor = enumeration.DESCRIPTOR
    prefix = described.values_by_number[0].name.removesuffix("UNSPECIFIED")
    told = {name.removeprefix(prefix).lower() for name in described.values_by_name}
    assert told == {"unspecified", *get_args(values)}


def _code(directory: Path) -> dict[Path, str]:
    return {
        path.relative_to(directory): path.read_text()
        for path in directory.rglob("*.py*")
        if "__pycache__" not in path.parts
    }
