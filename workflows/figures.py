"""What sagas tell Prometheus. Temporal's own meter is used because it is silent while a history is replayed: so
each saga and each step is counted once, by the workflow's own clock, and nothing of it is in the history."""

from datetime import timedelta

from temporalio import workflow


def tell_saga(outcome: str) -> None:
    """A saga ends now: its time from the start is noted by its outcome."""
    histogram = workflow.metric_meter().create_histogram_timedelta(
        "mallbots_saga_duration", "Time from the start of a saga to its end", "duration"
    )
    histogram.record(workflow.now() - workflow.info().start_time, {"outcome": outcome})


def tell_step(activity: str, outcome: str, took: timedelta) -> None:
    """A step or an undo ends now, and took so long with all its attempts and pauses."""
    histogram = workflow.metric_meter().create_histogram_timedelta(
        "mallbots_step_duration", "Time that a step or an undo took, with all its attempts", "duration"
    )
    histogram.record(took, {"activity": activity, "outcome": outcome})
