"""The command `mallbots`. Each command only reads its options; the work is done in the module it names."""

import asyncio
import sys
from enum import StrEnum
from typing import Annotated

import typer
from pydantic import ValidationError

from kernel.errors import MallError
from mallbots.commands import accounts, catalog, events, keys, notifications, versions
from mallbots.commands.audit import audit_command
from mallbots.commands.backup import backup_command, restore_command
from mallbots.commands.desk import desk_command
from mallbots.commands.mend import mend_command
from mallbots.commands.replay import replay_command
from mallbots.commands.robot import robot_command
from mallbots.console import MallConsole, complain
from mallbots.options import DEFAULT_DATA_DIR, DataDir, Publisher
from mallbots.settings import Settings

RUN = "Run the mall"
LOOK = "Look after it"
PROCESSES = "Its processes, one by one"


class Domain(StrEnum):
    """What a worker may be asked to work for: the sagas themselves, or the steps of a domain."""

    WORKFLOWS = "workflows"
    ORDERS = "orders"
    STORES = "stores"
    PAYMENTS = "payments"
    DEPOT = "depot"


app = typer.Typer(
    help="A mall that sells by kiosk and shops by robot: each order is one durable Temporal saga.",
    epilog="Start with `mallbots up`. While it runs, the other commands find it by themselves; "
    "`mallbots COMMAND --help` says more about each.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="markdown",
)


@app.command(rich_help_panel=RUN)
def up(
    *,
    robots: Annotated[int, typer.Option(min=0, max=1000, help="Run so many shopper bots, too.")] = 0,
    observe: Annotated[
        bool, typer.Option("--observe", help="Let every part tell its metrics, and Prometheus look at them.")
    ] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Run the whole mall on this machine until Ctrl-C.

    Starts PostgreSQL, NATS and Temporal, brings the schemas up to date, fills the mall with a small
    catalogue on the first start, and runs the workers, the relays, the consumers, the API and the gRPC
    gateways. With robots, orders are shopped by themselves. All data stays in the data directory.

    Its ports are settings (`mallbots settings`), for example: `MALLBOTS_API_PORT=8001 mallbots up`.

    With `--observe` every part serves metrics, on ports from `MALLBOTS_METRICS_PORT` (9464) on, and Prometheus is
    run with our alerts if it is installed. It says where all of it is, and how to get the rest.
    """
    from mallbots.up import run

    run(data_dir, robots=robots, observe=observe)


@app.command(rich_help_panel=LOOK)
def doctor(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Check this machine and the running mall, and say how to mend what is wrong.

    Exits with 1 when something is wrong. That no mall is running is not wrong.
    """
    from mallbots.doctor import Outcome, examine, report

    checks = asyncio.run(examine(data_dir))
    MallConsole().print(report(checks))
    if any(check.outcome is Outcome.PROBLEM for check in checks):
        raise typer.Exit(1)


@app.command(rich_help_panel=LOOK)
def settings(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """List every setting: its variable, its value, where that comes from, and what it means.

    A variable of the environment wins over what a running mall has written to `mall.env`.
    """
    from mallbots.settings_table import settings_table

    MallConsole().print(settings_table(data_dir))


@app.command(rich_help_panel=PROCESSES)
def worker(
    domain: Annotated[
        list[Domain] | None, typer.Option(help="Work for this domain only; can be given again.")
    ] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Run the Temporal workers: of all domains, or of those that are named.

    For example: `mallbots worker --domain stores --domain depot`
    """
    from worker import run

    run(list(domain or []))


@app.command(rich_help_panel=PROCESSES)
def relay(
    domain: Annotated[
        list[Publisher] | None, typer.Option(help="Relay this domain's events only; can be given again.")
    ] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Publish the domains' events to NATS JetStream, each once, in the order of their log.

    Run as many as you like: one a domain is active, the others stand by and take over when it ends.
    """
    from mallbots.relaying import run

    run(Settings.load(data_dir), [one.value for one in domain or []])


@app.command(rich_help_panel=PROCESSES)
def consumers(
    name: Annotated[
        list[str] | None, typer.Option(help="Run this consumer only; can be given again.", show_default=False)
    ] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Run the consumers that the mall needs: copies of names, the audit trail, notifications.

    Run as many as you like: they share the work. `mallbots events status` lists every consumer by name.
    """
    from mallbots.consuming import ROLES, run

    for unknown in set(name or []) - set(ROLES):
        raise typer.BadParameter(f"there is no consumer {unknown}, only {', '.join(ROLES)}", param_hint="--name")
    run(Settings.load(data_dir), name or [])


@app.command(rich_help_panel=PROCESSES)
def analytics(
    *,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Forget all numbers, and make them anew from the first event on.")
    ] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Run Analytics: a consumer that nobody else knows of.

    It makes its tables, also when somebody dropped them, and then reads every event from the first.
    """
    from mallbots.analysing import run

    run(Settings.load(data_dir), rebuild=rebuild)


@app.command(rich_help_panel=PROCESSES)
def api(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Serve the API on `MALLBOTS_API_HOST` and `MALLBOTS_API_PORT`."""
    from mallbots.serving import serve

    serve(Settings.load(data_dir))


@app.command(rich_help_panel=PROCESSES)
def grpc(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Serve gRPC on `MALLBOTS_GRPC_HOST` and `MALLBOTS_GRPC_PORT`: for robots, and a service for each domain.

    Run as many as you like: each shopping list is handed out once.
    """
    from mallbots.grpc_serving import serve_grpc

    serve_grpc(Settings.load(data_dir))


@app.command("codec-server", rich_help_panel=PROCESSES)
def codec_server(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Show operators in plain what is encrypted in Temporal, on `MALLBOTS_CODEC_HOST` and `MALLBOTS_CODEC_PORT`.

    For Temporal's Web UI, which sends the cookie of an operator who has signed in to the staff app, and for its
    command line, which sends the key of a service with the role operator:
    `temporal workflow show --codec-endpoint http://127.0.0.1:8081 --codec-auth "Bearer KEY" …`
    """
    from mallbots.codec_serving import serve_codec

    serve_codec(Settings.load(data_dir))


@app.command(rich_help_panel=PROCESSES)
def migrate(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Bring the schemas of all databases up to date; `mallbots up` does it by itself."""
    from mallbots.migrations import migrate as migrate_databases

    asyncio.run(migrate_databases(Settings.load(data_dir)))


@app.command(rich_help_panel=PROCESSES)
def prepare(
    *,
    sample_catalog: Annotated[
        bool, typer.Option("--sample-catalog", help="Bring in a small catalogue if the mall has no store.")
    ] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Get servers ready for a mall: schemas, Temporal's namespace with its search attributes, a first manager.

    The manager is made with `MALLBOTS_MANAGER_PASSWORD` while nobody has an account. Whatever is there stays as it
    is, so it may be run before every start; `mallbots up` does it by itself.
    """
    from mallbots.opening import prepare_mall

    console = MallConsole()
    for line in asyncio.run(prepare_mall(Settings.load(data_dir), sample_catalog=sample_catalog)):
        console.say(line)


app.command("replay", rich_help_panel=RUN)(replay_command)
app.command("robot", rich_help_panel=RUN)(robot_command)
app.command("desk", rich_help_panel=RUN)(desk_command)
app.command("audit", rich_help_panel=LOOK)(audit_command)
app.command("backup", rich_help_panel=LOOK)(backup_command)
app.command("restore", rich_help_panel=LOOK)(restore_command)
app.command("mend", rich_help_panel=LOOK)(mend_command)
app.add_typer(accounts.app, name="accounts", rich_help_panel=LOOK)
app.add_typer(catalog.app, name="catalog", rich_help_panel=LOOK)
app.add_typer(events.app, name="events", rich_help_panel=LOOK)
app.add_typer(keys.app, name="keys", rich_help_panel=LOOK)
app.add_typer(notifications.app, name="notifications", rich_help_panel=LOOK)
app.add_typer(versions.app, name="versions", rich_help_panel=LOOK)


def main() -> None:
    """The entry point: an error of the mall is one line and exit code 1, never a stack trace."""
    try:
        app()
    except MallError as error:
        complain(error.message)
    except ValidationError as error:
        if error.title != Settings.__name__:
            raise
        for wrong in error.errors():
            complain(f"MALLBOTS_{str(wrong['loc'][0]).upper()}: {wrong['msg']}")
    sys.exit(1)
