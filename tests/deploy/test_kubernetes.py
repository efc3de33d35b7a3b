"""What `kubectl apply -k deploy/kubernetes/overlays/…` would give to a cluster: valid, whole, and the same mall as
that of docker-compose.yml."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import jsonschema
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from pydantic import SecretStr

from api.grpc.server import GRACE as GRPC_GRACE
from mallbots.serving import GRACE as API_GRACE
from mallbots.settings import Settings
from worker import GRACE as WORKER_GRACE

ROOT: Final = Path(__file__).parents[2]
KUBERNETES: Final = ROOT / "deploy" / "kubernetes"
OVERLAYS: Final = ("small", "production", "workflows-0.1.0")
OLDEST: Final = "1.30"
SCHEMAS: Final = ROOT / "tests" / "data" / "schemas"
NAME: Final = "app.kubernetes.io/name"
SECRETS: Final = {
    "mallbots-nats": {"mallbots_nats_url"},
    "mallbots-temporal": {"mallbots_temporal_api_key", "mallbots_temporal_encryption_keys"},
    "mallbots-staff": {"mallbots_oidc_client_secret"},
    "mallbots-payments": {"mallbots_stripe_api_key", "mallbots_stripe_webhook_secret"},
    "mallbots-notifications": {"mallbots_notification_webhook_secret"},
    "mallbots-manager": {"mallbots_manager_password"},
}
"""The secrets that are mounted whole, and what is in them. Of mallbots-databases each process has only its own."""

Manifest = dict[str, Any]


@cache
def _built(overlay: str) -> list[Manifest]:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl, which has kustomize in it, is not on this machine")
    command = [kubectl, "kustomize", str(KUBERNETES / "overlays" / overlay)]
    built = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert built.returncode == 0, built.stderr
    return list(yaml.load_all(built.stdout, Loader=yaml.CSafeLoader))


def _of_kind(overlay: str, kind: str) -> dict[str, Manifest]:
    return {one["metadata"]["name"]: one for one in _built(overlay) if one["kind"] == kind}


def _processes(overlay: str) -> dict[str, Manifest]:
    return _of_kind(overlay, "Deployment") | _of_kind(overlay, "Job")


def _pod(process: Manifest) -> Manifest:
    pod: Manifest = process["spec"]["template"]["spec"]
    return pod


def _container(process: Manifest) -> Manifest:
    (container,) = _pod(process)["containers"]
    found: Manifest = container
    return found


def _environment(overlay: str, process: Manifest) -> dict[str, str]:
    maps = _of_kind(overlay, "ConfigMap")
    container = _container(process)
    environment: dict[str, str] = {}
    for source in container["envFrom"]:
        environment |= maps[source["configMapRef"]["name"]]["data"]
    labels = process["spec"]["template"]["metadata"]["labels"]
    for one in container.get("env", []):
        field = one.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath", "")
        label = re.fullmatch(r"metadata\.labels\['(.*)'\]", field)
        environment[one["name"]] = labels[label[1]] if label else one["value"]
    return environment


def _secrets(process: Manifest) -> set[str]:
    """The files that a process finds in its directory of secrets."""
    files: set[str] = set()
    volumes = {volume["name"]: volume for volume in _pod(process)["volumes"]}
    for source in volumes["secrets"]["projected"]["sources"]:
        secret = source["secret"]
        files |= {item["path"] for item in secret["items"]} if "items" in secret else SECRETS[secret["name"]]
    return files


def _compose() -> dict[str, Manifest]:
    """Our processes of docker-compose.yml; `api-1` and `api-2` are one."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return {
        re.sub(r"-\d$", "", name): service
        for name, service in services.items()
        if "mallbots" in str(service.get("image")) and "profiles" not in service
    }


@pytest.fixture(autouse=True, scope="module")
def schemas_are_read_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            kubernetes_validate.utils, "schema_contents", cache(kubernetes_validate.utils.schema_contents)
        )
        yield


def test_every_file_that_a_kustomization_names_is_there_and_no_other() -> None:
    named: set[Path] = set()
    for kustomization in KUBERNETES.rglob("kustomization.yaml"):
        content = yaml.safe_load(kustomization.read_text())
        paths = [*content.get("resources", []), *content.get("components", []), *content.get("configurations", [])]
        paths += [patch["path"] for patch in content.get("patches", []) if "path" in patch]
        paths += [path for one in content.get("configMapGenerator", []) for path in one["envs"]]
        for path in paths:
            found = (kustomization.parent / path).resolve()
            found = found / "kustomization.yaml" if found.is_dir() else found
            assert found.is_file(), f"{kustomization}: {path}"
            named.add(found)
    overlays = {KUBERNETES / "overlays" / name / "kustomization.yaml" for name in OVERLAYS}
    optional = {KUBERNETES / "README.md"}
    assert {path for path in KUBERNETES.rglob("*") if path.is_file()} == named | overlays | optional


@pytest.mark.parametrize(
    ("overlay", "version"),
    [("production", OLDEST), ("production", kubernetes_validate.latest_version()), ("workflows-0.1.0", OLDEST)],
)
def test_kubernetes_knows_every_field(overlay: str, version: str) -> None:
    for manifest in _built(overlay):
        if manifest["apiVersion"] != "keda.sh/v1alpha1":
            assert version.startswith(kubernetes_validate.validate(manifest, version, strict=True))


@pytest.mark.parametrize("overlay", ["production", "workflows-0.1.0"])
def test_keda_knows_every_field(overlay: str) -> None:
    schema = json.loads((SCHEMAS / "keda-scaledobject.json").read_text())
    scaled = _of_kind(overlay, "ScaledObject")
    assert scaled
    for manifest in scaled.values():
        jsonschema.validate(manifest, schema)


@pytest.mark.parametrize("overlay", ["small", "production"])
def test_every_process_of_docker_compose_runs_by_the_same_command_with_the_same_secrets(overlay: str) -> None:
    here = {name.removeprefix("mallbots-"): process for name, process in _processes(overlay).items()}
    compose = _compose()
    assert set(here) - {"codec-server"} == set(compose) - {"codec-server"}
    for name in set(here) & set(compose):
        command = _container(here[name])["command"]
        assert command == compose[name]["command"], name
        databases = {secret for secret in compose[name]["secrets"] if secret.endswith("_database_url")}
        assert {secret for secret in _secrets(here[name]) if secret.endswith("_database_url")} == databases, name
        assert set(compose[name]["secrets"]) <= _secrets(here[name]), name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_variable_is_a_setting_with_a_good_value_and_none_is_a_secret(
    overlay: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, process in _processes(overlay).items():
        environment = _environment(overlay, process)
        ours = {key.removeprefix("MALLBOTS_").lower() for key in environment if key.startswith("MALLBOTS_")}
        assert ours <= set(Settings.model_fields), name
        for setting in ours:
            assert SecretStr not in _types(setting), f"{name}: {setting} belongs in a file"
        with monkeypatch.context() as patched:
            for key, value in environment.items():
                patched.setenv(key, value)
            Settings(_env_file=None, _secrets_dir=None)
    assert not _of_kind(overlay, "Secret")
    assert not re.search(r"://[^/\s]*:[^/\s]*@", yaml.safe_dump_all(_built(overlay)))


def _types(setting: str) -> tuple[Any, ...]:
    annotation = Settings.model_fields[setting].annotation
    return (annotation, *getattr(annotation, "__args__", ()))


def test_every_file_of_a_secret_is_a_setting_and_the_readme_makes_it() -> None:
    readme = (KUBERNETES / "README.md").read_text()
    mounted = {file for process in _processes("production").values() for file in _secrets(process)}
    for file in mounted:
        assert SecretStr in _types(file.removeprefix("mallbots_"))
    for secret, files in SECRETS.items():
        command = re.search(rf"create secret generic {secret} (.*?)(?:\nkubectl|\n```)", readme, re.DOTALL)
        assert command is not None, secret
        assert set(re.findall(r"--from-file=secrets/(\S+)", command[1])) == files
    assert "create secret generic mallbots-databases" in readme


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_pod_has_more_rights_than_it_needs(overlay: str) -> None:
    for name, process in _processes(overlay).items():
        pod, container = _pod(process), _container(process)
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["runAsUser"] == 10001, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert container["resources"]["requests"].keys() >= {"cpu", "memory"}, name
        assert "memory" in container["resources"]["limits"], name
        written = _environment(overlay, process)
        mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert {str(Path(written["MALLBOTS_READY_FILE"]).parent), written["MALLBOTS_SECRETS_DIR"]} == mounts, name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_service_does_not_come_as_a_setting(overlay: str) -> None:
    """A Service `mallbots-api` would be a variable MALLBOTS_API_PORT=tcp://… in every pod."""
    for process in _processes(overlay).values():
        assert _pod(process)["enableServiceLinks"] is False


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_all_run_one_image_of_one_version(overlay: str) -> None:
    (image,) = {_container(process)["image"] for process in _processes(overlay).values()}
    assert re.fullmatch(r".+/mallbots:\d+\.\d+\.\d+", image)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_pod_is_replaced_before_it_goes_and_has_time_to_finish(overlay: str) -> None:
    longest = max(WORKER_GRACE.total_seconds(), GRPC_GRACE, API_GRACE)
    for name, process in _of_kind(overlay, "Deployment").items():
        pod, container = _pod(process), _container(process)
        assert process["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0, name
        pause = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        assert pod["terminationGracePeriodSeconds"] >= 2 * (pause + longest), name
        assert container["livenessProbe"], name
        assert container["startupProbe"], name
        is_served = any(port["name"] in ("http", "grpc") for port in container["ports"])
        assert (pause > 0) == is_served, f"{name}: whoever has clients leaves the endpoints first"
        for probe in ("livenessProbe", "startupProbe", "readinessProbe"):
            ways = {"exec", "httpGet", "grpc"} & container.get(probe, {}).keys()
            assert len(ways) == (probe in container), f"{name}: {probe}"
            # Of what we depend on no probe asks: it would take all of us away where one server is.
            assert container.get(probe, {}).get("httpGet", {}).get("path", "/healthz") == "/healthz"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_selector_finds_its_pods_and_every_deployment_may_lose_one_pod_at_a_time(overlay: str) -> None:
    deployments = _of_kind(overlay, "Deployment")
    labels = {name: one["spec"]["template"]["metadata"]["labels"] for name, one in deployments.items()}

    def found(selector: Mapping[str, str]) -> list[str]:
        return [name for name, have in labels.items() if selector.items() <= have.items()]

    for name, deployment in deployments.items():
        assert found(deployment["spec"]["selector"]["matchLabels"]) == [name]
    budgets = _of_kind(overlay, "PodDisruptionBudget").values()
    covered = [found(budget["spec"]["selector"]["matchLabels"]) for budget in budgets]
    assert sorted(covered) == sorted([name] for name in deployments)
    assert all(budget["spec"]["maxUnavailable"] == 1 for budget in budgets)
    for service in _of_kind(overlay, "Service").values():
        (name,) = found(service["spec"]["selector"])
        ports = {port["name"] for port in _container(deployments[name])["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    for ingress in _of_kind(overlay, "Ingress").values():
        for path in ingress["spec"]["rules"][0]["http"]["paths"]:
            assert path["backend"]["service"]["name"] in _of_kind(overlay, "Service")
    for policy in _of_kind(overlay, "NetworkPolicy").values():
        selector = policy["spec"]["podSelector"]
        for expression in selector.get("matchExpressions", []):
            assert set(expression["values"]) <= {have[NAME] for have in labels.values()}
        assert found(selector.get("matchLabels", {})), policy["metadata"]["name"]


def test_in_production_all_have_two_pods_or_are_autoscaled_from_two() -> None:
    deployments = _of_kind("production", "Deployment")
    hpas = _of_kind("production", "HorizontalPodAutoscaler")
    scaled = _of_kind("production", "ScaledObject")
    by_hpa = {one["spec"]["scaleTargetRef"]["name"]: one["spec"]["minReplicas"] for one in hpas.values()}
    by_queue = {one["spec"]["scaleTargetRef"]["name"]: one["spec"]["minReplicaCount"] for one in scaled.values()}
    assert by_hpa.keys() | by_queue.keys() <= deployments.keys()
    for name, deployment in deployments.items():
        scalers = [table[name] for table in (by_hpa, by_queue) if name in table]
        # A number of replicas beside an autoscaler would undo its work whenever somebody applies.
        assert ("replicas" in deployment["spec"]) != bool(scalers) or name == "mallbots-codec-server", name
        assert scalers == [2] or deployment["spec"].get("replicas") == 2 or name == "mallbots-codec-server", name


@pytest.mark.parametrize("overlay", ["production", "workflows-0.1.0"])
def test_workers_are_scaled_by_the_backlog_of_the_task_queue_that_they_serve(overlay: str) -> None:
    deployments = _of_kind(overlay, "Deployment")
    scaled = {one["spec"]["scaleTargetRef"]["name"]: one for one in _of_kind(overlay, "ScaledObject").values()}
    workers = {name: one for name, one in deployments.items() if "worker" in name}
    assert scaled.keys() == workers.keys()
    for name, worker in workers.items():
        queue = _container(worker)["command"][-1]
        (backlog,) = [one for one in scaled[name]["spec"]["triggers"] if one["type"] == "temporal"]
        environment = _environment(overlay, worker)
        assert backlog["metadata"]["taskQueue"] == queue
        assert backlog["metadata"]["queueTypes"] == ("workflow" if queue == "workflows" else "activity")
        assert backlog["metadata"]["namespace"] == environment["MALLBOTS_TEMPORAL_NAMESPACE"]
        assert backlog["metadata"]["endpointFromEnv"] in environment


def test_the_workers_of_a_version_say_so_and_have_nothing_in_common_with_others() -> None:
    others = _of_kind("production", "Deployment")
    for name, worker in _of_kind("workflows-0.1.0", "Deployment").items():
        version = _container(worker)["image"].rpartition(":")[2]
        environment = _environment("workflows-0.1.0", worker)
        assert environment["MALLBOTS_WORKER_BUILD_ID"] == version
        assert worker["spec"]["selector"]["matchLabels"]["app.kubernetes.io/version"] == version
        assert name not in others
    for scaled in _of_kind("workflows-0.1.0", "ScaledObject").values():
        metadata = scaled["spec"]["triggers"][0]["metadata"]
        assert metadata["workerDeploymentName"] == Settings.model_fields["worker_deployment"].default
        assert metadata["workerDeploymentBuildId"] == "0.1.0"


def test_what_comes_before_the_rest_can_be_applied_alone() -> None:
    first = [
        one
        for one in _built("production")
        if one["metadata"].get("labels", {}).get("app.kubernetes.io/component") == "before-the-rest"
    ]
    assert sorted(one["kind"] for one in first) == ["ConfigMap", "Job", "Namespace"]


@pytest.mark.parametrize(
    ("path", "spoil"),
    [
        ("spec.strategy", lambda value: value | {"type": "Sometimes", "rollingUpdates": {}}),
        ("spec.template.spec.containers", lambda value: [value[0] | {"livenessprobe": {}}]),
        ("spec.replicas", lambda value: "two"),
    ],
)
def test_a_field_that_is_not_one_is_found(path: str, spoil: Callable[[Any], Any]) -> None:
    manifest: Manifest = json.loads(json.dumps(_of_kind("production", "Deployment")["mallbots-relay"]))
    *parents, last = path.split(".")
    place = manifest
    for parent in parents:
        place = place[parent]
    place[last] = spoil(place.get(last))
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, OLDEST, strict=True)
