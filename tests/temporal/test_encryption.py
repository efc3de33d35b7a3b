"""What Temporal keeps of an order can be encrypted: nobody reads it there, and everything goes on as before."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.client import Client, WorkflowHandle
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Replayer

from kernel.errors import Misconfigured, Unavailable
from mallbots.embedded import Credentials, Postgres, temporal_part
from mallbots.encryption import KEY_ID, data_converter, encryption_codec, open_sealed, seal
from mallbots.settings import Settings
from mallbots.temporal import connect
from mallbots.up import addresses, ports
from tests.temporal.conftest import CUSTOMER, SKU, a_story
from tests.temporal.keys import NEWER, OLDER
from tests.workflows.conftest import WORKERS, Domains, Story
from tests.workflows.test_hand_over import CODE, hand_over
from workflows.attributes import CUSTOMER as CUSTOMER_ATTRIBUTE
from workflows.attributes import ORDER_STATUS
from workflows.client import OrderSagas
from workflows.messages import OrderOutcome
from workflows.order import OrderWorkflow
from workflows.refund import RefundWorkflow

SettingsOf = Callable[..., Settings]
SUMMARY = "2 items of Grocery"
CLERK = "beatrice-of-the-desk"
TROUBLE = "the card network is on holiday"
PRIVATE = (CUSTOMER, SKU, SUMMARY, TROUBLE, CODE, "tok_approved", CLERK)
SOON = timedelta(seconds=10)


@asynccontextmanager
async def at_work(settings: Settings) -> AsyncIterator[Domains]:
    """Every worker of a mall with these settings."""
    domains = Domains(await connect(settings))
    for one in WORKERS:
        await domains.up(one)
    try:
        yield domains
    finally:
        # Workers that outlive their server keep the process.
        await asyncio.gather(*map(domains.down, WORKERS))


async def begin(story: Story, client: Client) -> None:
    """Order as a kiosk does."""
    assert await OrderSagas(client).answer(story.request, summary=SUMMARY, timeout=SOON)


async def to_the_customer(story: Story) -> None:
    await story.robot_takes()
    await story.robot_brings()
    await story.until(lambda account: account.status == "ready")
    await hand_over(story, by=CLERK)
    assert (await story.handle.result()).status == "completed"


async def kept(story: Story) -> bytes:
    """All that Temporal keeps of an order."""
    events = (await story.history()).events
    described = (await story.handle.describe()).raw_description
    return b"".join([described.SerializeToString(), *(event.SerializeToString() for event in events)])


async def test_nobody_reads_in_temporal_what_an_encrypted_order_is_about(
    server: WorkflowEnvironment, settings_of: SettingsOf
) -> None:
    async with at_work(settings_of(temporal_encryption_keys=NEWER)) as domains:
        story = a_story(server, domains, domains.client)
        failed = asyncio.Event()

        async def network_fails_once(attempt: int) -> None:
            if attempt == 1:
                failed.set()
                raise Unavailable(TROUBLE)

        domains.when(story.id, "payments.authorize", network_fails_once)
        await begin(story, domains.client)
        assert failed.is_set()
        described = await story.handle.describe()
        assert await described.static_summary() == SUMMARY
        assert described.typed_search_attributes.get(CUSTOMER_ATTRIBUTE) is None
        assert described.typed_search_attributes[ORDER_STATUS] == "approved"
        assert [word for word in PRIVATE if word.encode() in await kept(story)] == []
        await to_the_customer(story)
        found = await kept(story)
        assert [word for word in PRIVATE if word.encode() in found] == []
        # What the server itself works by stays readable.
        for readable in (str(story.id), "kiosk-1", "payments.capture", "completed"):
            assert readable.encode() in found


@pytest.mark.parametrize("trouble", [TROUBLE, f"{TROUBLE}: {'very ' * 2000}"], ids=["short", "long"])
async def test_operators_are_told_why_an_encrypted_order_is_stuck(
    server: WorkflowEnvironment, settings_of: SettingsOf, trouble: str
) -> None:
    async with at_work(settings_of(temporal_encryption_keys=NEWER)) as domains:
        story = a_story(server, domains, domains.client)
        mended = False

        async def network_fails(attempt: int) -> None:
            if not mended:
                raise Unavailable(trouble)

        domains.when(story.id, "payments.authorize", network_fails)
        await story.begin()
        sagas = OrderSagas(domains.client)
        async with asyncio.timeout(10):
            while True:
                account = await sagas.account(story.id)
                step = next(step for step in account.steps if step.activity == "payments.authorize")
                if step.error:
                    break
        assert step.error.startswith(TROUBLE)
        mended = True
        await story.until(lambda account: account.status == "approved")
        await story.handle.terminate()


async def test_an_order_outlives_the_keys_that_it_began_with(
    server: WorkflowEnvironment, settings_of: SettingsOf, caplog: pytest.LogCaptureFixture
) -> None:
    """It begins in plain, goes on with the first key, and ends with the second."""
    async with at_work(settings_of()) as domains:
        story = a_story(server, domains, domains.client)
        await begin(story, domains.client)
    for keys in (OLDER, f"{NEWER},{OLDER}"):
        async with at_work(settings_of(temporal_encryption_keys=keys)) as domains:
            handle: WorkflowHandle[OrderWorkflow, OrderOutcome] = domains.client.get_workflow_handle_for(
                OrderWorkflow.run, story.handle.id
            )
            later = Story(server, domains, story.request, handle)
            if keys == OLDER:
                await later.robot_takes()
                await later.robot_brings()
                await later.until(lambda account: account.status == "ready")
            else:
                await hand_over(later)
    found = await kept(later)
    assert [how for how in (b"json/plain", b"older", b"newer") if how not in found] == []
    history = await later.history()
    rotated = data_converter(settings_of(temporal_encryption_keys=f"{NEWER},{OLDER}"))
    await Replayer(workflows=[OrderWorkflow, RefundWorkflow], data_converter=rotated).replay_workflow(history)
    # Without the old key nobody can tell any more how it began.
    lost = data_converter(settings_of(temporal_encryption_keys=NEWER))
    with pytest.raises(RuntimeError):
        await Replayer(workflows=[OrderWorkflow, RefundWorkflow], data_converter=lost).replay_workflow(history)
    assert "with the key 'older', which is not in MALLBOTS_TEMPORAL_ENCRYPTION_KEYS" in caplog.text


@pytest.mark.parametrize(
    ("key", "bound_to", "sealed"),
    [
        (1, b"", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
        (3, b"c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
    ],
)
def test_the_cipher_is_that_of_the_specification(key: int, bound_to: bytes, sealed: str) -> None:
    secret, nonce = bytes([key] * 32), b"ABCDEFGHIJKLMNOPQRSTUVWX"
    assert seal(secret, nonce, b"XAES-256-GCM", bound_to).hex() == sealed
    assert open_sealed(secret, nonce, bytes.fromhex(sealed), bound_to) == b"XAES-256-GCM"


async def test_the_newest_key_encrypts_and_every_key_decrypts() -> None:
    payload = Payload(metadata={"encoding": b"json/plain"}, data=b'"tea"')
    [before] = await encryption_codec(Settings(temporal_encryption_keys=OLDER)).encode([payload])
    rotated = encryption_codec(Settings(temporal_encryption_keys=f"{NEWER}, {OLDER}"))
    [after, again] = await rotated.encode([payload, payload])
    assert (before.metadata[KEY_ID], after.metadata[KEY_ID]) == (b"older", b"newer")
    assert after.metadata["encoding"] == b"binary/encrypted"
    assert after.data != again.data
    assert await rotated.decode([before, after, payload]) == [payload] * 3


async def test_what_was_altered_or_is_of_another_namespace_does_not_decrypt() -> None:
    keys = f"{NEWER},{OLDER}"
    codec = encryption_codec(Settings(temporal_encryption_keys=keys))
    [whole] = await codec.encode([Payload(data=b"tea")])

    def altered(data: bytes, id: bytes = b"newer") -> Payload:
        return Payload(metadata={**whole.metadata, KEY_ID: id}, data=data)

    flipped = whole.data[:-1] + bytes([whole.data[-1] ^ 1])
    for payload in (altered(flipped), altered(whole.data[:20]), altered(b""), altered(whole.data, b"older")):
        with pytest.raises(Misconfigured, match="does not decrypt with the key"):
            await codec.decode([payload])
    elsewhere = encryption_codec(Settings(temporal_encryption_keys=keys, temporal_namespace="other"))
    with pytest.raises(Misconfigured, match="for another namespace than other"):
        await elsewhere.decode([whole])


def test_a_mall_that_encrypts_runs_the_codec_server_and_its_other_commands_find_the_keys(tmp_path: Path) -> None:
    settings = Settings(temporal_encryption_keys=NEWER, codec_port=28_081, data_dir=tmp_path)
    assert ("codec", 28_081) in [(port.part, port.number) for port in ports(settings)]
    assert "codec" not in [port.part for port in ports(Settings(data_dir=tmp_path))]
    told = addresses(settings, Postgres(tmp_path, 1, "secret"), Credentials())
    assert (told["temporal_encryption_keys"], told["codec_port"]) == (NEWER, "28081")
    web_ui = temporal_part(tmp_path, 1, 2, codec_url="http://127.0.0.1:28081").command
    assert web_ui[web_ui.index("--ui-codec-endpoint") + 1] == "http://127.0.0.1:28081"


@pytest.mark.parametrize(
    ("keys", "rule"),
    [
        ("", "key 1 is not ID:KEY"),
        (f"{NEWER},", "key 2 is not ID:KEY"),
        ("a b:c2VjcmV0", "letters, digits, dots, dashes or underscores"),
        ("a:c2VjcmV0", "the key of a is not 32 bytes in Base64"),
        ("a:secret!", "the key of a is not 32 bytes in Base64"),
        (f"{NEWER},{NEWER}", "the id newer stands there twice"),
    ],
)
def test_bad_keys_are_told_by_their_rule_and_never_shown(keys: str, rule: str) -> None:
    with pytest.raises(Misconfigured, match=f"^MALLBOTS_TEMPORAL_ENCRYPTION_KEYS: .*{rule}") as refused:
        Settings(temporal_encryption_keys=keys)
    assert "secret" not in str(refused.value)
    assert "c2Vj" not in str(refused.value)
