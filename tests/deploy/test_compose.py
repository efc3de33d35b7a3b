"""docker-compose.yml and what it mounts, held against everything that can be asked without an engine. That its
services form a mall is what `make compose-check` shows."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import asyncpg
import click
import pytest
import trustme
import typer
import yaml
from jsonschema import Draft202012Validator
from sqlalchemy.engine import make_url

from deploy.compose_file import FILE, Service, read_document, services
from deploy.make_secrets import make_secrets
from deploy.natively import Places
from mallbots.cli import app
from mallbots.consuming import ROLES
from mallbots.embedded import find_binary, postgres_binary
from mallbots.settings import DATABASES, Settings
from tests.promtool import find as find_promtool

ROOT = FILE.parent
SCHEMA = json.loads((ROOT / "tests" / "data" / "compose" / "compose-spec.json").read_text())
DOCUMENT = read_document()
SERVICES = services(DOCUMENT)
OURS = [service for service in SERVICES.values() if service.is_ours]
CONSOLES = {"temporal-ui", "jaeger", "prometheus", "grafana", "codec-server"}
each_service = pytest.mark.parametrize("service", SERVICES.values(), ids=lambda service: service.name)
each_of_ours = pytest.mark.parametrize("service", OURS, ids=lambda service: service.name)


def given(service: Service) -> dict[str, Any]:
    return dict(DOCUMENT["services"][service.name])


def test_the_file_is_as_the_compose_specification_has_it() -> None:
    assert [error.message for error in Draft202012Validator(SCHEMA).iter_errors(DOCUMENT)] == []


@each_service
def test_a_service_waits_for_what_can_be_waited_for(service: Service) -> None:
    for name, condition in service.depends_on.items():
        other = SERVICES[name]
        if condition == "service_healthy":
            assert other.healthcheck, name
        else:
            assert condition == "service_completed_successfully"
            assert given(other)["restart"].startswith("on-failure"), f"{name} does not end"
        assert not other.profiles, f"{name} is not started by `up`"


@each_service
def test_an_image_is_pinned_to_a_version(service: Service) -> None:
    # PostgreSQL's versions are of two numbers.
    numbers = 2 if service.image.startswith("postgres:") else 3
    assert re.fullmatch(rf"[\w./-]+:v?\d+(\.\d+){{{numbers - 1}}}(-[a-z][\w.]*)?", service.image)


@each_service
def test_a_service_may_take_and_do_only_so_much(service: Service) -> None:
    of_service = given(service)
    assert set(of_service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert of_service["logging"]["options"]["max-size"]
    assert of_service["cap_drop"] == ["ALL"]
    assert of_service["security_opt"] == ["no-new-privileges:true"]
    assert of_service["networks"]


@each_of_ours
def test_our_processes_run_as_nobody_on_a_read_only_root(service: Service) -> None:
    of_service = given(service)
    assert of_service["user"] == "10001:10001"
    assert of_service["read_only"] is True
    assert service.volumes == ("/tmp",)  # noqa: S108
    assert int(of_service["stop_grace_period"].removesuffix("s")) >= 30
    assert service.healthcheck or service.name in ("migrate", "tools")


def test_only_the_proxy_is_published_to_the_world() -> None:
    for service in SERVICES.values():
        for published in given(service).get("ports", ()):
            assert service.name == "proxy" or published.startswith("127.0.0.1:"), service.name
    assert {name for name, one in DOCUMENT["services"].items() if "ports" in one} == {"proxy", *CONSOLES}
    assert DOCUMENT["networks"]["backend"] == {"internal": True}


def test_every_secret_is_made_by_the_script_and_used(tmp_path: Path) -> None:
    made = make_secrets(tmp_path / "secrets")
    declared = DOCUMENT["secrets"]
    assert set(made) == set(declared)
    assert set(made) == {name for service in SERVICES.values() for name in service.secrets}
    assert {one["file"] for one in declared.values()} == {f"./secrets/{name}" for name in declared}
    for name in made:
        if name.startswith("mallbots_"):
            assert name.removeprefix("mallbots_") in Settings.model_fields, name


def test_who_prepares_and_who_looks_after_the_mall_reach_every_database() -> None:
    every = {f"mallbots_{name}_database_url" for name in DATABASES}
    for name in ("databases", "migrate", "tools"):
        assert set(SERVICES[name].secrets) >= every, name


def test_secrets_are_new_for_every_mall_and_stay_as_they_are(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    made = make_secrets(one)
    make_secrets(other)
    before = {name: (one / name).read_text() for name in made}
    assert {name for name in made if before[name] == (other / name).read_text()} == {
        name for name in made if not before[name]
    }
    assert one.stat().st_mode & 0o777 == 0o700
    assert all((one / name).stat().st_mode & 0o777 == 0o444 for name in made if before[name])
    (one / "nats_authorization").unlink()
    assert make_secrets(one) == ["nats_authorization"]
    assert {name: (one / name).read_text() for name in made} == before


def test_no_secret_is_in_the_file() -> None:
    for service in SERVICES.values():
        for name, value in service.environment.items():
            if re.search("PASSWORD|PWD|SECRET|TOKEN|API_KEY|DATABASE_URL|NATS_URL", name):
                assert value.startswith("/run/secrets"), f"{service.name}: {name}"
            assert not re.search(r"://[^/@]+:[^/@]+@", value), f"{service.name}: {name}"


@each_of_ours
def test_a_command_is_one_of_ours(service: Service) -> None:
    program, *arguments = service.command
    assert program == "mallbots"
    group = typer.main.get_command(app)
    assert isinstance(group, click.Group) or hasattr(group, "resolve_command")
    with group.make_context("mallbots", list(arguments)) as context:
        name, command, rest = group.resolve_command(context, list(arguments))
        assert command is not None
        with command.make_context(name, rest, parent=context) as parsed:
            assert set(parsed.params.get("name") or ()) <= set(ROLES)


@each_of_ours
def test_every_variable_is_a_setting_with_a_good_value(service: Service) -> None:
    ours = {name: value for name, value in service.environment.items() if name.startswith("MALLBOTS_")}
    settings = {name.removeprefix("MALLBOTS_").lower(): value for name, value in ours.items()}
    assert set(settings) <= set(Settings.model_fields)
    Settings.model_validate(settings)


def test_every_consumer_runs_somewhere() -> None:
    named = {word.partition("=")[2] or word for service in OURS for word in service.command}
    assert set(ROLES) <= named


@each_service
def test_what_is_mounted_is_there(service: Service) -> None:
    assert [str(outside) for outside in service.files.values() if not outside.exists()] == []


def test_what_prometheus_asks_is_served() -> None:
    prometheus = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    for job in prometheus["scrape_configs"]:
        for target in (target for group in job["static_configs"] for target in group["targets"]):
            name, port = target.split(":")
            values = SERVICES[name].environment.values()
            assert any(value == port or value.endswith(f":{port}") for value in values), target


def test_prometheus_takes_its_configuration() -> None:
    promtool = find_promtool()
    if promtool is None:
        pytest.skip("there is no promtool here")
    folder = ROOT / "deploy" / "prometheus"
    run(promtool, "check", "config", str(folder / "prometheus.yml"))


def test_the_collector_sends_on_what_it_takes() -> None:
    collector = yaml.safe_load((ROOT / "deploy" / "otel-collector" / "config.yaml").read_text())
    for pipeline in collector["service"]["pipelines"].values():
        for kind in ("receivers", "processors", "exporters"):
            assert set(pipeline[kind]) <= set(collector[kind])
    assert collector["receivers"]["otlp"]["protocols"]["http"]["endpoint"].endswith(":4318")
    for exporter in collector["exporters"].values():
        assert exporter["endpoint"].partition(":")[0] in SERVICES


def test_temporals_configuration_is_values_with_their_constraints() -> None:
    dynamic = yaml.safe_load((ROOT / "deploy" / "temporal" / "dynamicconfig.yaml").read_text())
    assert all(isinstance(values, list) and all("value" in one for one in values) for values in dynamic.values())


def test_temporal_is_the_version_that_the_tests_run_on() -> None:
    version = run(str(find_binary("temporal")), "--version")
    assert f"Server {SERVICES['temporal'].image.partition(':')[2]}" in version
    assert f"UI {SERVICES['temporal-ui'].image.partition(':')[2]}" in version
    assert SERVICES["temporal-schema"].image.partition(":")[2] == SERVICES["temporal"].image.partition(":")[2]


@pytest.mark.parametrize("with_tls", [False, True])
def test_caddy_takes_its_configuration(tmp_path: Path, with_tls: bool) -> None:
    variables = dict(SERVICES["proxy"].environment)
    if with_tls:
        certificate = trustme.CA().issue_cert("mall.example")
        files = {"certificate": certificate.cert_chain_pems[0], "key": certificate.private_key_pem}
        for name, pem in files.items():
            pem.write_to_path(tmp_path / name)
        variables = {
            "PROXY_SITE": "https://mall.example",
            "PROXY_GRPC_SITE": "https://mall.example:50051",
            "PROXY_TLS": f"tls {tmp_path / 'certificate'} {tmp_path / 'key'}",
        }
    file = str(ROOT / "deploy" / "proxy" / "Caddyfile")
    caddy = str(find_binary("caddy"))
    run(caddy, "validate", "--adapter", "caddyfile", "--config", file, XDG_DATA_HOME=str(tmp_path), **variables)
    run(caddy, "fmt", "--diff", file)


def test_nats_takes_its_configuration(tmp_path: Path) -> None:
    places = furnished("nats", tmp_path)
    configuration = places.path(SERVICES["nats"], "/etc/nats/nats.conf")
    assert "is valid" in run(str(find_binary("nats-server")), "-t", "--config", str(configuration))


async def test_each_database_is_its_roles_own_and_passwords_can_be_changed(postgres: str, tmp_path: Path) -> None:
    places = furnished("databases", tmp_path)
    server = make_url(postgres)
    inside = places.path(SERVICES["databases"], "/run/secrets")
    # The server of the tests is shared: names of our own.
    few = {f"mallbots_{name}_database_url": f"{name}_{os.getpid()}" for name in ("orders", "stores")}
    for file in inside.glob("mallbots_*_database_url"):
        file.unlink()
    for number in (1, 2):
        for name, role in few.items():
            url = f"postgresql+asyncpg://{role}:secret'{number}@127.0.0.1:{server.port}/{role}"
            (inside / name).write_text(url)
        (inside / "postgres_password").write_text(server.password or "")
        script = places.path(SERVICES["databases"], "/etc/mallbots/databases.sh")
        url = f"postgresql://{server.username}@{server.host}:{server.port}/postgres"
        programs = f"{postgres_binary('psql').parent}:{os.environ['PATH']}"
        said = run("sh", str(script), SERVER_URL=url, PATH=programs)
        assert said.strip() == "every role has its database"

    async def connected(role: str, password: str, database: str) -> bool:
        try:
            connection = await asyncpg.connect(
                host=server.host, port=server.port, user=role, password=password, database=database
            )
        except (asyncpg.InvalidPasswordError, asyncpg.InsufficientPrivilegeError):
            return False
        await connection.close()
        return True

    one, other = few.values()
    assert await connected(one, "secret'2", one)
    assert not await connected(one, "secret'1", one)
    assert not await connected(one, "secret'2", other)


@pytest.mark.parametrize("script", sorted((ROOT / "deploy").rglob("*.sh")), ids=lambda script: script.name)
def test_a_script_is_one_of_a_plain_shell(script: Path) -> None:
    run("sh", "-n", str(script))


def test_the_image_is_built_as_hadolint_has_it() -> None:
    run(str(find_binary("hadolint")), str(ROOT / "deploy" / "Dockerfile"))


def test_the_image_has_all_packages_and_nobody_is_root_in_it() -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    project = (ROOT / "pyproject.toml").read_text()
    (packages,) = re.findall(r"^include = (\[.*\])$", project, re.MULTILINE)
    for package in json.loads(packages):
        name = package.removesuffix("*")
        assert f"COPY {name} {name}" in dockerfile
        assert name in let_in
    assert re.findall("^FROM (.*)$", dockerfile, re.MULTILINE)[1:] == ["python:3.11.15-slim-bookworm"]
    assert "USER 10001:10001" in dockerfile


def furnished(name: str, directory: Path) -> Places:
    """A service's files and secrets, laid out as they are mounted."""
    make_secrets(directory / "secrets")
    places = Places(directory / "root", list(SERVICES))
    places.furnish(SERVICES[name], directory / "secrets")
    return places


def run(*command: str, **variables: str) -> str:
    """What a program says; it must end well."""
    environment = os.environ | variables
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
