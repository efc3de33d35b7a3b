"""`mallbots robot`. It only reads its options, so that naming the command costs nothing."""

import os
from typing import Annotated

import typer

from mallbots.console import MallConsole
from mallbots.options import DEFAULT_DATA_DIR, DataDir
from mallbots.settings import Settings

MOST_ROBOTS = 1000


def robot_command(
    *,
    count: Annotated[int, typer.Option(min=1, max=MOST_ROBOTS, help="So many robots.")] = 1,
    speed: Annotated[
        float,
        typer.Option(
            min=0.01, help="1: two seconds from stop to stop, half a second an item; 10: a tenth of that."
        ),
    ] = 1.0,
    missing: Annotated[
        float, typer.Option(min=0, max=1, help="How likely an item is not found, or only some of its pieces.")
    ] = 0.0,
    seed: Annotated[
        int, typer.Option(help="The same seed finds the same of a product of an order, whichever robot looks.")
    ] = 0,
    drop: Annotated[
        float, typer.Option(min=0, max=1, help="How likely a robot cuts its connection at an item.")
    ] = 0.0,
    vanish: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="How likely a robot falls silent in the middle of a list. It comes back, as after a reboot, "
            "when the mall must have given it up.",
        ),
    ] = 0.0,
    prefix: Annotated[str, typer.Option(help="The robots are called so: robot-1, robot-2, …")] = "robot",
    token: Annotated[
        list[str] | None,
        typer.Option(
            envvar="MALLBOTS_ROBOT_TOKENS",
            help="A robot's token (`mallbots keys create NAME --robot`), for a machine that has no access to "
            "the database; given again, for a robot each. The variable has them between spaces.",
            show_default=False,
        ),
    ] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Run shopper bots until Ctrl-C: they take shopping lists, pick, and bring everything to the desk.

    They are real clients of the robots' gateway (`MALLBOTS_GRPC_ADDRESS`) and wait for it without end when it
    is away. On a terminal a table shows what they do; otherwise each thing that matters is a line of the log.

    A robot that is stopped with a list in its hands keeps it: it goes on when it is started again soon,
    otherwise the mall gives the list to another.

    For example, a bad day: `mallbots robot --count 5 --speed 5 --missing 0.1 --drop 0.05 --vanish 0.1`
    """
    # gRPC reads it when it is imported: what it says of lost connections, the robots say themselves.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from clients.robots.bot import Habits
    from clients.robots.fleet import run_robots
    from mallbots.commands.robot_display import RobotTable
    from mallbots.processes import run_process

    settings = Settings.load(data_dir)
    habits = Habits(speed=speed, missing=missing, drop=drop, vanish=vanish, seed=seed)
    console = MallConsole()
    if not console.is_terminal:
        robots = run_robots(settings, count=count, prefix=prefix, tokens=token or [], habits=habits)
        run_process(settings, "robots", robots)
        return
    with RobotTable(console) as table:
        run_process(
            settings,
            "robots",
            run_robots(
                settings,
                count=count,
                prefix=prefix,
                tokens=token or [],
                habits=habits,
                on_event=table.show,
            ),
        )
