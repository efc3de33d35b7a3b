"""The work queue: each job is done by one worker, and given out again until one is done with it."""

import asyncio
import itertools
import logging
import random
from collections import Counter

import pytest
from nats.js.api import RetentionPolicy, StreamConfig

from events.stream import connected
from events.work_queue import WORK_STREAM, Job, TryAgain, Workers, work_queue
from kernel.errors import Misconfigured, Unavailable
from kernel.ids import new_id
from tests.events.log import running
from tests.nats import NatsServer, a_nats_server
from tests.waiting import eventually

_numbers = itertools.count()


@pytest.fixture
def queue() -> str:
    """The name of a queue that no other test uses."""
    return f"queue-{next(_numbers)}"


class Crew:
    """What a handler saw and did: each attempt at a job with its time, and the jobs that are done."""

    def __init__(self) -> None:
        self.attempts: list[tuple[str, int, float]] = []
        self.done: Counter[str] = Counter()

    async def do(self, job: Job) -> None:
        self.note(job)
        self.done[job.id] += 1

    def note(self, job: Job) -> None:
        self.attempts.append((job.id, job.attempt, asyncio.get_running_loop().time()))

    def gaps(self, job_id: str) -> list[float]:
        """The seconds between the attempts at a job."""
        times = [time for name, _, time in self.attempts if name == job_id]
        return [after - before for before, after in itertools.pairwise(times)]


async def hand_out(server: NatsServer, queue: str, *job_ids: str) -> list[bool]:
    async with work_queue(server.url, queue) as opened:
        return [await opened.hand_out(job_id, b"") for job_id in job_ids]


async def jobs_left(server: NatsServer, queue: str) -> int:
    """How many jobs of a queue are not done."""
    assert WORK_STREAM.name is not None
    async with connected(server.url, "test") as nats:
        found = await nats.jetstream.stream_info(WORK_STREAM.name, subjects_filter=f"work.{queue}.>")
        return len(found.state.subjects or {})


async def test_each_job_is_done_once_by_one_of_several_workers(nats_server: NatsServer, queue: str) -> None:
    crews = [Crew() for _ in range(3)]
    chance = random.Random(7)
    jobs = [f"job-{number}" for number in range(40)]

    def worker(crew: Crew) -> Workers:
        async def take_a_while(job: Job) -> None:
            await asyncio.sleep(chance.uniform(0, 0.01))
            await crew.do(job)

        return Workers(nats_server.url, queue, take_a_while, at_once=2)

    async with running(*(worker(crew).run() for crew in crews)):
        assert all(await hand_out(nats_server, queue, *jobs))
        await eventually(lambda: sum(crew.done.total() for crew in crews) >= len(jobs))
        done = sum((crew.done for crew in crews), Counter[str]())
        assert done == Counter(jobs)
        assert sum(1 for crew in crews if crew.done) > 1

        async def none_is_left() -> bool:
            return await jobs_left(nats_server, queue) == 0

        await eventually(none_is_left)


async def test_a_job_carries_its_body_to_the_worker(nats_server: NatsServer, queue: str) -> None:
    found: list[Job] = []

    async def keep(job: Job) -> None:
        found.append(job)

    async with work_queue(nats_server.url, queue) as opened:
        await opened.hand_out("one", b"what to do")
    async with running(Workers(nats_server.url, queue, keep).run()):
        await eventually(lambda: found)
    assert found == [Job("one", b"what to do", attempt=1)]


async def test_jobs_of_two_queues_may_have_the_same_id(nats_server: NatsServer, queue: str) -> None:
    assert await hand_out(nats_server, queue, "one") == [True]
    assert await hand_out(nats_server, f"{queue}-other", "one") == [True]


async def test_a_job_handed_out_again_is_one_job_while_it_waits_and_after_it_is_done(
    nats_server: NatsServer, queue: str
) -> None:
    crew = Crew()
    assert await hand_out(nats_server, queue, "one", "one") == [True, False]
    async with running(Workers(nats_server.url, queue, crew.do).run()):
        await eventually(lambda: crew.done["one"])
        assert await hand_out(nats_server, queue, "one", "two") == [False, True]
        await eventually(lambda: crew.done["two"])
    assert crew.done == Counter(one=1, two=1)


async def test_a_job_that_waits_for_longer_than_nats_remembers_ids_is_still_one_job(
    nats_server: NatsServer, queue: str
) -> None:
    await hand_out(nats_server, queue, "one")
    async with work_queue(nats_server.url, queue) as opened, connected(nats_server.url, "test") as nats:
        # Under another message id, as if the first were forgotten.
        subject = f"work.{queue}.one"
        with pytest.raises(Exception, match="maximum messages per subject"):
            await nats.jetstream.publish(subject, b"", headers={"Nats-Msg-Id": str(new_id())})
        assert await opened.hand_out("one", b"") is False
    assert await jobs_left(nats_server, queue) == 1


async def test_the_job_of_a_worker_that_is_stopped_in_the_middle_goes_to_another_soon(
    nats_server: NatsServer, queue: str
) -> None:
    crew, begun = Crew(), asyncio.Event()

    async def never_end(job: Job) -> None:
        begun.set()
        await asyncio.Event().wait()

    # Three more wait for jobs, which end with it.
    stopped = asyncio.create_task(Workers(nats_server.url, queue, never_end, at_once=4).run())
    await hand_out(nats_server, queue, "one")
    await begun.wait()
    stopped.cancel()
    await asyncio.gather(stopped, return_exceptions=True)
    async with running(Workers(nats_server.url, queue, crew.do).run()):
        await eventually(lambda: crew.done["one"], timeout=5)
    assert [attempt for _, attempt, _ in crew.attempts] == [2]


async def test_jobs_that_are_handed_out_while_workers_end_are_done_by_others(
    nats_server: NatsServer, queue: str
) -> None:
    crew = Crew()
    jobs = [f"job-{number}" for number in range(24)]

    def workers() -> Workers:
        return Workers(nats_server.url, queue, crew.do, at_once=4, ack_wait=1)

    async with work_queue(nats_server.url, queue) as opened:
        for turns in range(6):
            ending = asyncio.create_task(workers().run())
            await opened.hand_out(f"before-{turns}", b"")
            await eventually(lambda: len([name for name in crew.done if name.startswith("before")]) > turns)  # noqa: B023
            some = jobs[turns * 4 : turns * 4 + 4]
            handing_out = [asyncio.create_task(opened.hand_out(name, b"")) for name in some]
            for _ in range(turns * 2):
                await asyncio.sleep(0)
            ending.cancel()
            await asyncio.gather(ending, return_exceptions=True)
            assert all(await asyncio.gather(*handing_out))
    async with running(workers().run()):
        await eventually(lambda: set(jobs) <= set(crew.done))


async def test_the_job_of_a_worker_that_died_goes_to_another_after_a_while(
    nats_server: NatsServer, queue: str
) -> None:
    crew = Crew()
    async with running(Workers(nats_server.url, queue, crew.do, ack_wait=0.5).run()):
        await hand_out(nats_server, queue, "before")
        await eventually(lambda: crew.done["before"])
    await hand_out(nats_server, queue, "one")
    assert WORK_STREAM.name is not None
    async with connected(nats_server.url, "test") as nats:
        # A worker that takes the job and is never heard of again.
        dead = await nats.jetstream.pull_subscribe_bind(consumer=queue, stream=WORK_STREAM.name)
        (taken,) = await dead.fetch(1, timeout=2)
        assert taken.subject == f"work.{queue}.one"
    async with running(Workers(nats_server.url, queue, crew.do, ack_wait=0.5).run()):
        await eventually(lambda: crew.done["one"], timeout=5)
    assert crew.attempts[-1][:2] == ("one", 2)


async def test_a_job_that_takes_long_is_not_given_to_another(nats_server: NatsServer, queue: str) -> None:
    crew = Crew()

    async def take_long(job: Job) -> None:
        crew.note(job)
        await asyncio.sleep(0.9)
        crew.done[job.id] += 1

    async with running(Workers(nats_server.url, queue, take_long, at_once=2, ack_wait=0.3).run()):
        await hand_out(nats_server, queue, "one")
        await eventually(lambda: crew.done["one"])
    assert [attempt for _, attempt, _ in crew.attempts] == [1]
    assert await jobs_left(nats_server, queue) == 0


async def test_a_job_that_fails_is_tried_again_after_growing_pauses_and_holds_nobody_up(
    nats_server: NatsServer, queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    crew = Crew()

    async def fail_at_first(job: Job) -> None:
        if job.id == "bad" and job.attempt <= 3:
            crew.note(job)
            raise RuntimeError("broken")
        await crew.do(job)

    with caplog.at_level(logging.WARNING, "events.work_queue"):
        async with running(Workers(nats_server.url, queue, fail_at_first, retry_after=(0.1, 0.4)).run()):
            await hand_out(nats_server, queue, "bad", "good-1", "good-2")
            await eventually(lambda: crew.done["bad"])
    assert [name for name, _, _ in crew.attempts][:3] == ["bad", "good-1", "good-2"]
    assert [attempt for name, attempt, _ in crew.attempts if name == "bad"] == [1, 2, 3, 4]
    first, second, third = crew.gaps("bad")
    assert first >= 0.1
    assert second >= 0.4
    assert third >= 0.4
    assert "broken" in caplog.text


async def test_a_handler_can_say_when_its_job_is_to_be_tried_again(nats_server: NatsServer, queue: str) -> None:
    crew = Crew()

    async def not_yet(job: Job) -> None:
        if job.attempt == 1:
            crew.note(job)
            raise TryAgain("not yet", after=0.3)
        await crew.do(job)

    async with running(Workers(nats_server.url, queue, not_yet, retry_after=(60,)).run()):
        await hand_out(nats_server, queue, "one")
        await eventually(lambda: crew.done["one"])
    (gap,) = crew.gaps("one")
    assert 0.3 <= gap < 5


async def test_a_thousand_jobs_that_wait_for_their_next_attempt_do_not_hold_up_the_next(
    nats_server: NatsServer, queue: str
) -> None:
    crew = Crew()

    async def fail_all_but_the_last(job: Job) -> None:
        if job.id != "last":
            crew.note(job)
            raise TryAgain("away", after=3600)
        await crew.do(job)

    async with work_queue(nats_server.url, queue) as opened:
        await asyncio.gather(*(opened.hand_out(f"job-{number}", b"") for number in range(1_100)))
        await opened.hand_out("last", b"")
    async with running(Workers(nats_server.url, queue, fail_all_but_the_last, at_once=4).run()):
        await eventually(lambda: crew.done["last"], timeout=20)
    assert len(crew.attempts) == 1_101


async def test_jobs_and_workers_survive_that_nats_is_killed(queue: str, caplog: pytest.LogCaptureFixture) -> None:
    with a_nats_server() as server:
        await server.start()
        crew, begun, go_on = Crew(), asyncio.Event(), asyncio.Event()

        async def wait(job: Job) -> None:
            crew.note(job)
            begun.set()
            await go_on.wait()
            crew.done[job.id] += 1

        async with running(Workers(server.url, queue, wait, ack_wait=1).run()):
            await hand_out(server, queue, "begun", "waiting")
            await begun.wait()
            server.kill()
            with pytest.raises(Unavailable):
                await hand_out(server, queue, "lost")
            go_on.set()
            # The worker ends what it has begun, but can not say so.
            await eventually(lambda: crew.done["begun"])
            await server.start()
            await eventually(lambda: crew.done["waiting"], timeout=15)

            async def none_is_left() -> bool:
                return await jobs_left(server, queue) == 0

            await eventually(none_is_left)
        assert crew.done["begun"] == 2
        assert crew.done["waiting"] == 1
        warnings = [entry.message for entry in caplog.records if entry.name == "events.work_queue"]
        assert len(warnings) == len(set(warnings))


async def test_a_job_that_waits_for_its_next_attempt_is_not_lost_when_nats_is_killed(queue: str) -> None:
    with a_nats_server() as server:
        await server.start()
        crew = Crew()

        async def fail_at_first(job: Job) -> None:
            if not crew.attempts:
                crew.note(job)
                raise TryAgain("not yet", after=0.5)
            await crew.do(job)

        # Killed at once, NATS may have forgotten that the job was given back: its worker counts as dead then.
        async with running(Workers(server.url, queue, fail_at_first, ack_wait=1).run()):
            await hand_out(server, queue, "one")
            await eventually(lambda: crew.attempts)
            assert await hand_out(server, queue, "one") == [False]
            server.kill()
            await server.start()
            await eventually(lambda: crew.done["one"], timeout=15)


async def test_workers_and_those_who_hand_out_refuse_a_stream_that_is_not_ours(queue: str) -> None:
    with a_nats_server() as server:
        await server.start()
        theirs = StreamConfig(name="MALLBOTS_WORK", subjects=["work.>"], retention=RetentionPolicy.LIMITS)
        async with connected(server.url, "test") as nats:
            await nats.jetstream.add_stream(theirs)
        refusal = "MALLBOTS_WORK is not ours: retention is limits, not workqueue"
        with pytest.raises(Misconfigured, match=refusal):
            await Workers(server.url, queue, Crew().do, at_once=2).run()
        with pytest.raises(Misconfigured, match=refusal):
            await hand_out(server, queue, "one")


@pytest.mark.parametrize("name", ["", "a.b", "a b", ">", "*"])
async def test_a_name_that_is_no_single_token_of_a_subject_is_refused(
    nats_server: NatsServer, queue: str, name: str
) -> None:
    with pytest.raises(ValueError, match="can not be part of a subject"):
        await hand_out(nats_server, queue, name)
    with pytest.raises(ValueError, match="can not be part of a subject"):
        Workers(nats_server.url, name, Crew().do)
