"""Many shopper bots in one process, with the tokens that they need."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from clients.robots.bot import Bot, Habits, Sight
from clients.robots.line import Gateway
from mallbots.kept_keys import install_keys
from mallbots.settings import Settings

_log = logging.getLogger(__name__)


def log_event(sight: Sight) -> None:
    """Log what a bot does: what matters at `info`, the rest at `debug`."""
    level = logging.INFO if sight.matters else logging.DEBUG
    order = f" (order {sight.order_id})" if sight.order_id else ""
    _log.log(level, "%s %s%s", sight.robot, sight.event, order)


async def run_robots(
    settings: Settings,
    *,
    count: int = 1,
    prefix: str = "robot",
    tokens: Sequence[str] = (),
    habits: Habits = Habits(),
    on_event: Callable[[Sight], None] = log_event,
) -> None:
    """Run the bots `<prefix>-1` to `<prefix>-<count>` until cancelled; then idle ones say Break.

    Bots without a token get one, as an operator who installs robots would do, and it is kept on this machine.
    With `tokens`, there is a bot for each of them instead, and no database is asked. A gateway that is away is
    waited for. Raises `Misconfigured` if the certificate of the settings cannot be read or there is no
    database, `InvalidInput` for a bad name, `Unavailable` if the database does not answer.
    """
    gateway = gateway_of(settings)
    if tokens:
        named: Mapping[str, str] = {f"{prefix}-{number}": token for number, token in enumerate(tokens, 1)}
    else:
        named = await install_keys(settings, "robots", [f"{prefix}-{number}" for number in range(1, count + 1)])
    async with asyncio.TaskGroup() as tasks:
        for number, (name, token) in enumerate(named.items()):
            tasks.create_task(Bot(number, name, token, gateway, habits, on_event).run())


def gateway_of(settings: Settings) -> Gateway:
    """The robots' gateway of the settings. Raises `Misconfigured` if a certificate or key is no good."""

    own = settings.pem_pair("grpc_tls_client_certificate", "grpc_tls_client_key", needs="grpc_tls_ca")
    return Gateway(settings.grpc_address, settings.pem("grpc_tls_ca"), *(own or (None, None)))
