"""How a service of the compose file is run without a container: what of it is changed, and nothing else."""

from pathlib import Path

import pytest

from deploy.compose_file import read_document, services
from deploy.natively import Places

SERVICES = services(read_document())


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path, list(SERVICES))


def test_the_same_port_of_two_services_is_two_ports(places: Places) -> None:
    one = places.text(SERVICES["proxy"], "reverse_proxy api-1:8000 api-2:8000")
    ports = {places.port("api-1", 8000), places.port("api-2", 8000)}
    assert len(ports) == 2
    assert one == "reverse_proxy {}:{} {}:{}".format(
        "127.0.0.1", places.port("api-1", 8000), "127.0.0.1", places.port("api-2", 8000)
    )


def test_an_own_address_stays_ones_own(places: Places) -> None:
    api = SERVICES["api-2"]
    port = places.port("api-2", 8000)
    assert places.text(api, "http://127.0.0.1:8000/healthz") == f"http://127.0.0.1:{port}/healthz"
    assert places.text(api, "0.0.0.0") == "127.0.0.1"  # noqa: S104
    assert places.text(SERVICES["proxy"], ":80") == f":{places.port('proxy', 80)}"
    assert places.environment(api)["MALLBOTS_API_PORT"] == str(port)


def test_an_address_that_is_on_this_machine_already_stays(places: Places) -> None:
    here = f"http://127.0.0.1:{places.port('proxy', 80)}"
    assert places.text(SERVICES["api-1"], here) == here


def test_a_path_inside_is_one_below_the_services_own_directory(places: Places, tmp_path: Path) -> None:
    here = tmp_path / "nats"
    assert places.text(SERVICES["nats"], "/etc/nats/nats.conf") == f"{here}/etc/nats/nats.conf"
    assert places.text(SERVICES["nats"], "store_dir: /data") == f"store_dir: {here}/data"
    assert places.text(SERVICES["nats"], "../../run/secrets/x") == "../../run/secrets/x"
    assert places.text(SERVICES["nats"], "/database") == "/database"
