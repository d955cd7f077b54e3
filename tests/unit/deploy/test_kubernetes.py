"""The Kubernetes manifests: rendered as a user would, held to Kubernetes' schemas and to the rules of our own.

No cluster is asked. `kubectl` or `kustomize` renders; the package kubernetes-validate has the schemas.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

import cutoff
from tests.fixtures import kubernetes
from tests.fixtures.kubernetes import (
    GUIDE,
    MANIFESTS,
    RAY_PORTS,
    RAY_WORKER_PORTS,
    ROOT,
    STAGE_SERVICES,
    Object,
    container,
    edges,
    named,
    of_kind,
    program,
    render,
    template_with,
    templates,
)

pytestmark = pytest.mark.skipif(
    program() is None and not os.environ.get("CI"), reason="kubectl (or kustomize) is missing, which renders"
)

SUPPORTED = ("1.32", "1.37")
"""The oldest and the newest Kubernetes whose schemas the manifests are held to; docs/kubernetes.md names them."""
GPUS = {"cpu": None, "cuda": "nvidia.com/gpu", "rocm": "amd.com/gpu"}
TAGS = {"cpu": "cpu", "cuda": "cu130", "rocm": "rocm6.4"}
KUBERAY = ("cuda-kuberay", "rocm-kuberay")
OVERLAYS = (*GPUS, *KUBERAY)
FOLDERS = {**{name: f"overlays/{name}" for name in OVERLAYS}, "copy": "copy"}

RULES = {name.removeprefix("faults_of_"): rule for name, rule in vars(kubernetes).items() if name.startswith("faults_")}
ABOUT_PODS = ("privileges", "probes", "resources", "names")
"""Those that hold for the pod `copy` too, which stands on the claims of an overlay."""

EDGES = {
    ("clients", "coordinator", "TCP 50051"),
    ("prometheus", "coordinator", "TCP 9101"),
    ("prometheus", "stage", "TCP 9102-9105"),
    ("coordinator", "stage", "TCP 50052-50055"),
    ("stage", "internet", "TCP 443"),
    *((pod, "dns", f"{protocol} 53") for pod in ("coordinator", "stage") for protocol in ("UDP", "TCP")),
}
RAY_EDGES = {
    ("stage", "coordinator", "TCP 6379-6381"),
    ("stage", "coordinator", "TCP 10002-10101"),
    ("coordinator", "stage", "TCP 6380-6381"),
    ("coordinator", "stage", "TCP 10002-10101"),
}


@cache
def _rendered(name: str) -> str:
    return json.dumps(render(MANIFESTS / FOLDERS[name]))


@pytest.fixture
def rendered() -> Callable[[str], list[Object]]:
    """Renders a folder once a session; each test gets objects of its own."""
    return lambda name: json.loads(_rendered(name))


# Schemas


def check_schema(item: Object, version: str) -> None:
    """Holds an object to the strict schemas of a Kubernetes version: unknown fields are faults."""
    import kubernetes_validate

    kubernetes_validate.validate(item, version, strict=True)


@pytest.mark.parametrize("version", SUPPORTED)
def test_every_object_is_what_kubernetes_schemas_say(rendered, version):
    items = {json.dumps(item) for name in FOLDERS for item in rendered(name) if item["kind"] != "RayCluster"}
    for item in items:
        check_schema(json.loads(item), version)


@pytest.mark.parametrize("version", SUPPORTED)
def test_the_pods_of_a_ray_cluster_are_what_kubernetes_schemas_say(rendered, version):
    for name in KUBERAY:
        cluster = RayCluster.model_validate(named(rendered(name), "RayCluster", "cutoff"))
        for template in (
            cluster.spec.head_group_spec.template,
            *(group.template for group in cluster.spec.worker_group_specs),
        ):
            pod = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "of-ray"}, "template": template}
            check_schema(pod, version)


def test_a_misspelt_field_fails(rendered):
    import kubernetes_validate

    objects = rendered("cpu")
    container(objects, "trainer")["imagePullPolicies"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError, match="imagePullPolicies"):
        check_schema(named(objects, "StatefulSet", "stage"), SUPPORTED[-1])


# The RayCluster. KubeRay's own schema comes with its operator only. This one was written by hand, from what we know of
# KubeRay's API, for the fields that we use: another field fails here, though KubeRay may know it.


class _ByHand(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)


class RayHead(_ByHand):
    ray_start_params: dict[str, str]
    template: Object


class RayWorkers(RayHead):
    group_name: Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$")]
    replicas: Annotated[int, Field(ge=0)]
    min_replicas: Annotated[int, Field(ge=0)]
    max_replicas: Annotated[int, Field(ge=1)]


class RayClusterSpec(_ByHand):
    ray_version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    head_group_spec: RayHead
    worker_group_specs: list[RayWorkers]


class RayClusterMetadata(_ByHand):
    name: Annotated[str, Field(max_length=50)]
    namespace: str
    labels: dict[str, str]
    annotations: dict[Literal["ray.io/overwrite-container-cmd"], Literal["true"]]


class RayCluster(_ByHand):
    api_version: Literal["ray.io/v1"]
    kind: Literal["RayCluster"]
    metadata: RayClusterMetadata
    spec: RayClusterSpec


@pytest.mark.parametrize("field", ["headGroupSpecs", "rayVersoin"])
def test_a_misspelt_field_of_the_ray_cluster_fails(rendered, field):
    cluster = named(rendered("cuda-kuberay"), "RayCluster", "cutoff")
    cluster["spec"][field] = {}
    with pytest.raises(ValidationError, match=field):
        RayCluster.model_validate(cluster)


@pytest.mark.parametrize("name", KUBERAY)
def test_ray_is_the_first_container_where_kuberay_looks_for_it(rendered, name):
    pods = templates(rendered(name))
    assert [pod.spec["containers"][0]["name"] for pod in pods] == ["ray", "ray"]


@pytest.mark.parametrize("name", KUBERAY)
def test_the_ray_cluster_has_the_pods_of_its_overlay(rendered, name):
    """But for Ray's containers and volumes, and who installs."""
    with_ray, without = rendered(name), rendered(name.removesuffix("-kuberay"))
    for service in kubernetes.PORTS:
        ours = container(with_ray, service)
        if service == "coordinator":
            ours["env"].remove({"name": "RAY_ADDRESS", "value": "127.0.0.1:6379"})
            ours["env"].remove({"name": "CUTOFF_MODELS_HOST", "value": "any"})
        assert ours == container(without, service)
    for service in ("coordinator", "trainer"):
        ours, base = template_with(with_ray, service).spec, template_with(without, service).spec
        added = {field for field in ours if ours[field] != base.get(field)}
        assert added - {"containers", "volumes"} == ({"shareProcessNamespace"} if service == "coordinator" else set())
    assert not of_kind(with_ray, "StatefulSet")


def test_ray_is_the_version_that_the_image_installs(rendered):
    cluster = named(rendered("cuda-kuberay"), "RayCluster", "cutoff")
    assert f"ray=={cluster['spec']['rayVersion']}\n" in (ROOT / "constraints.txt").read_text()


@pytest.mark.parametrize("name", OVERLAYS)
def test_no_ray_without_a_token(rendered, name):
    wanted = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/run/cutoff/ray-token"}
    with_ray = [each for pod in templates(rendered(name)) for each in pod.containers if "coordinator" in each["image"]]
    assert with_ray
    for each in with_ray:
        assert wanted.items() <= {item["name"]: item.get("value") for item in each["env"]}.items()


@pytest.mark.parametrize("name", KUBERAY)
def test_rays_ports_are_those_of_the_policies(rendered, name):
    for service in ("coordinator", "trainer"):
        ray = template_with(rendered(name), service).container("ray")
        given = dict(argument.removeprefix("--").split("=", 1) for argument in ray["args"] if "=" in argument)
        ports = RAY_PORTS if service == "coordinator" else {**RAY_PORTS, "port": None}
        assert {option: given.get(option) for option in ports} == {
            option: None if port is None else str(port) for option, port in ports.items()
        }
        assert (int(given["min-worker-port"]), int(given["max-worker-port"])) == RAY_WORKER_PORTS
        assert {port["containerPort"] for port in ray["ports"]} == set(filter(None, ports.values()))


@pytest.mark.parametrize("name", KUBERAY)
def test_a_driver_shares_the_ray_nodes_processes_and_files(rendered, name):
    """Ray's driver looks for the raylet among the processes it sees, and talks to it by sockets in /tmp/ray."""
    pod = template_with(rendered(name), "coordinator")
    assert pod.spec["shareProcessNamespace"] is True
    ray, driver = (
        {mount["mountPath"]: mount["name"] for mount in pod.container(each)["volumeMounts"]}
        for each in ("ray", "coordinator")
    )
    assert ray.items() <= driver.items()


@pytest.mark.parametrize("name", KUBERAY)
def test_a_worker_reaches_the_services_beside_it_and_has_no_users_token(rendered, name):
    pod = template_with(rendered(name), "trainer")
    environment = {one["name"]: one.get("value") for one in pod.container("ray")["env"]}
    ports = {one["name"]: one["ports"][0]["containerPort"] for one in pod.containers if one["name"] != "ray"}
    for service in STAGE_SERVICES:
        variable = f"CUTOFF_{service.upper().replace('-', '_')}_ADDRESS"
        assert environment[variable] == f"$(POD_IP):{ports[service]}", "the coordinator calls it, too"
    assert "--labels=cutoff-host=$(POD_NAME)" in pod.container("ray")["args"]
    volume = next(volume for volume in pod.spec["volumes"] if volume["name"] == "ray-secrets")
    assert volume["projected"]["sources"][1]["secret"]["items"] == [{"key": "ray-token", "path": "ray-token"}]
    assert {"name": "CUTOFF_TOKEN_FILE", "value": ""} in pod.container("ray")["env"]


# Our rules


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", OVERLAYS)
def test_the_rules_are_kept(rendered, name, rule):
    assert list(RULES[rule](rendered(name))) == []


@pytest.mark.parametrize("rule", ABOUT_PODS)
def test_the_pod_to_copy_with_keeps_the_rules_about_pods(rendered, rule):
    assert list(RULES[rule](rendered("copy"))) == []


def test_the_pod_to_copy_with_mounts_what_the_services_read(rendered):
    volumes = {volume["name"]: volume for volume in templates(rendered("copy"))[0].spec["volumes"]}
    services = template_with(rendered("cpu"), "trainer").spec["volumes"]
    assert {"datasets", "base-models"} == set(volumes)
    assert all(volume in services for volume in volumes.values())


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_namespace_refuses_what_the_pods_do_not_need(rendered, name):
    (namespace,) = of_kind(rendered(name), "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("name", OVERLAYS)
def test_exactly_these_calls_are_allowed(rendered, name):
    found = edges(rendered(name))
    assert found["Egress"] | found["Ingress"] == EDGES | (RAY_EDGES if name in KUBERAY else set())


@pytest.mark.parametrize("name", FOLDERS)
def test_images_have_the_version_and_the_accelerator_in_their_tags(rendered, name):
    for pod in templates(rendered(name)):
        for each in pod.containers:
            image, _, tag = each["image"].partition(":")
            accelerator = TAGS.get(name.removesuffix("-kuberay"))
            stage = image.removeprefix("cutoff/") in STAGE_SERVICES
            assert tag == cutoff.__version__ + (f"-{accelerator}" if stage else "")


@pytest.mark.parametrize("name", OVERLAYS)
def test_who_computes_gets_a_gpu_and_nobody_else(rendered, name):
    gpu = GPUS[name.removesuffix("-kuberay")]
    objects = rendered(name)
    for pod in templates(objects):
        for each in pod.containers:
            extended = {key: value for key, value in each["resources"]["limits"].items() if "/" in key}
            assert extended == ({gpu: 1} if gpu and each["name"] in ("trainer", "evaluator") else {})
    assert named(objects, "ConfigMap", "settings")["data"]["CUTOFF_GPUS"] == ("1" if gpu else "0")


@pytest.mark.parametrize("name", OVERLAYS)
def test_there_is_one_of_each_pod(rendered, name):
    objects = rendered(name)
    counts = [item["spec"]["replicas"] for item in of_kind(objects, "StatefulSet")]
    counts += [
        group[field]
        for item in of_kind(objects, "RayCluster")
        for group in item["spec"]["workerGroupSpecs"]
        for field in ("replicas", "minReplicas", "maxReplicas")
    ]
    assert set(counts) == {1}
    for pod in templates(objects):
        assert pod.spec["terminationGracePeriodSeconds"] == 90


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_coordinator_finds_each_service(rendered, name):
    settings = named(rendered(name), "ConfigMap", "settings")["data"]
    for service in STAGE_SERVICES:
        address = settings[f"CUTOFF_{service.upper().replace('-', '_')}_ADDRESS"]
        assert address == f"{service}:{kubernetes.PORTS[service][0]}"


# The rules themselves: each finds what it is for.


def _a_secret(objects: list[Object]) -> Object:
    return next(volume for volume in template_with(objects, "trainer").spec["volumes"] if "secret" in volume)["secret"]


def _set(path: str, value: Any) -> Callable[[list[Object]], None]:
    """Changes what is at kind/name/path, or container/path, with ~ for a slash in a key; None removes it."""

    def change(objects: list[Object]) -> None:
        first, *parts = path.split("/")
        at: Any = named(objects, first, parts.pop(0)) if first[0].isupper() else container(objects, first)
        for part in parts[:-1]:
            at = at[int(part)] if part.isdigit() else at[part]
        last = int(parts[-1]) if parts[-1].isdigit() else parts[-1].replace("~", "/")
        if value is None:
            del at[last]
        else:
            at[last] = value

    return change


_POD = "StatefulSet/stage/spec/template/spec"
BROKEN: list[tuple[str, Callable[[list[Object]], None], str]] = [
    ("privileges", _set(f"{_POD}/securityContext/runAsUser", 0), "root"),
    ("privileges", _set(f"{_POD}/securityContext/runAsNonRoot", None), "root"),
    ("privileges", _set(f"{_POD}/securityContext/fsGroup", 0), "root's group"),
    ("privileges", _set(f"{_POD}/securityContext/seccompProfile", {"type": "Unconfined"}), "seccomp"),
    ("privileges", _set(f"{_POD}/automountServiceAccountToken", True), "API server"),
    ("privileges", _set(f"{_POD}/hostNetwork", True), "hostNetwork"),
    ("privileges", _set(f"{_POD}/volumes/0", {"name": "kfd", "hostPath": {"path": "/dev/kfd"}}), "kfd"),
    ("privileges", _set("merger/securityContext/readOnlyRootFilesystem", False), "readOnlyRootFilesystem"),
    ("privileges", _set("merger/securityContext/privileged", True), "privileged"),
    ("privileges", _set("merger/securityContext/allowPrivilegeEscalation", None), "security context"),
    ("privileges", _set("merger/securityContext/capabilities", {"drop": ["NET_RAW"]}), "NET_RAW"),
    ("privileges", _set("coordinator/ports/0/hostPort", 50051), "port of the host"),
    ("probes", _set("evaluator/livenessProbe", None), "lacks its livenessProbe"),
    ("probes", _set("evaluator/readinessProbe", {"grpc": {"port": 50055}}), "TLS"),
    ("probes", _set("evaluator/livenessProbe/exec", {"command": ["cutoff-health"]}), "while it drains"),
    ("probes", _set("trainer/livenessProbe/failureThreshold", 3), "its run with it"),
    ("resources", _set("coordinator/resources/limits/memory", None), "limits of memory"),
    ("resources", _set("coordinator/resources/requests/memory", "1 GB"), "requests of memory"),
    ("resources", _set("trainer/resources/limits/memory", "4Gi"), "with files"),
    ("mounts", _set("trainer/volumeMounts/0/name", "tls"), "tls is not there"),
    ("mounts", _set("gguf-converter/volumeMounts/4", None), "models is mounted nowhere"),
    ("mounts", _set("trainer/volumeMounts/1/mountPath", "/tmp"), "two volumes"),
    ("mounts", _set("PersistentVolumeClaim/models/metadata/name", "model"), "claim models does not exist"),
    ("mounts", _set(f"{_POD}/volumes/10", {"name": "locks", "emptyDir": {}}), "locks is not in memory"),
    ("shared_volumes", _set("PersistentVolumeClaim/artifacts/spec/accessModes", ["ReadWriteOnce"]), "artifacts"),
    ("shared_volumes", _set("PersistentVolumeClaim/state/spec/accessModes", ["ReadWriteMany"]), "state"),
    ("references", lambda objects: _a_secret(objects).update(secretName="trainer"), "needs the secret trainer"),
    ("references", lambda objects: _a_secret(objects).update(items=[{"key": "tls.pem"}]), "tls.pem"),
    ("references", _set("merger/envFrom/0/configMapRef/name", "setting"), "setting"),
    ("contract", _set("merger/ports/0/containerPort", 50054), "has the ports"),
    ("contract", _set("evaluator/volumeMounts/4/readOnly", None), "mounts"),
    ("contract", _set("merger/image", "cutoff/trainer:0.1.0-cpu"), "runs cutoff/trainer"),
    ("contract", _set("merger/args", ["sleep", "infinity"]), "as its image does"),
    ("services", _set("Service/trainer/spec/selector/app.kubernetes.io~component", "trainer"), "leads to []"),
    ("services", _set("Service/merger/spec/ports/0/targetPort", "grpc"), "leads from 50053 to []"),
    ("services", _set("Service/merger/spec/ports/0/port", 50052), "leads from 50052"),
    ("services", _set("Service/merger/spec/ports/1", None), "has 1 ports"),
    ("services", _set("Service/merger/metadata/name", "merge"), "each of the five"),
    ("names", _set("gguf-converter/ports/0/name", "grpc-gguf-converter"), "named grpc-gguf-converter"),
    ("names", _set("merger/ports/0/name", "grpc-trainer"), "two ports of one name"),
    ("names", _set("merger/name", "trainer"), "two containers"),
    ("names", _set("StatefulSet/stage/spec/selector/matchLabels", {"app": "stage"}), "its own pods"),
    ("names", _set("NetworkPolicy/dns/metadata/namespace", "default"), "another namespace"),
    ("policies", _set("NetworkPolicy/stage/spec/podSelector/matchLabels", {"app": "stage"}), "about no pod"),
    ("policies", _set("NetworkPolicy/nothing-else/spec/policyTypes", ["Ingress"]), "not denied"),
    ("policies", _set("NetworkPolicy/stage/spec/ingress/0/from/0/podSelector", {"matchLabels": {"a": "b"}}), "exist"),
    ("policies", _set("NetworkPolicy/stage/spec/ingress/0/ports/0/endPort", 50054), "on one side only"),
]


@pytest.mark.parametrize(("rule", "change", "said"), BROKEN)
def test_a_rule_finds_what_it_is_for(rendered, rule, change, said):
    objects = rendered("cpu")
    change(objects)
    assert said in "\n".join(RULES[rule](objects))


def test_an_edge_too_many_is_seen(rendered):
    objects = rendered("cpu")
    egress = named(objects, "NetworkPolicy", "coordinator")["spec"]["egress"]
    egress.append(copy.deepcopy(named(objects, "NetworkPolicy", "stage")["spec"]["egress"][0]))
    assert ("coordinator", "internet", "TCP 443") in edges(objects)["Egress"] - EDGES


# The guide


def _yaml_blocks() -> Iterator[str]:
    return (block for block in re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(), re.DOTALL))


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_guides_own_overlay_renders(tmp_path: Path, name):
    """It names a registry and a storage class, beside each overlay of ours."""
    (block,) = (block for block in _yaml_blocks() if "kind: Kustomization" in block)
    shutil.copytree(MANIFESTS, tmp_path / "kubernetes")
    mine = tmp_path / "kubernetes/mine"
    mine.mkdir()
    (mine / "kustomization.yaml").write_text(block.replace("overlays/cuda", f"overlays/{name}"))
    objects = render(mine)
    images = {each["image"].rpartition("/")[0] for pod in templates(objects) for each in pod.containers}
    assert images == {"registry.example.org/cutoff"}
    classes = {
        item["metadata"]["name"]: item["spec"].get("storageClassName")
        for item in of_kind(objects, "PersistentVolumeClaim")
    }
    assert classes == {name: "nfs" if name in ("artifacts", "datasets", "base-models") else None for name in classes}


def test_the_guide_names_the_overlays_the_versions_and_whom_policies_let_in():
    text = GUIDE.read_text()
    labels = [label for peer in kubernetes.OUTSIDE for label in peer.split()]
    for word in (*OVERLAYS, *SUPPORTED, *labels[:3]):
        assert word in text, word


def test_no_manifest_holds_a_secret():
    for file in MANIFESTS.rglob("*.yaml"):
        for item in yaml.safe_load_all(file.read_text()):
            assert item["kind"] != "Secret", file
