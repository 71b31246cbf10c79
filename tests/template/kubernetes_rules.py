"""What a Kubernetes server rejects, or what never works, although it fits the schema: kubernetes-validate passes it.

Sources: kubernetes.io/docs/concepts/workloads/controllers/job and …/security/pod-security-standards (restricted), and
the server's own validation, pkg/apis/batch/validation and pkg/apis/core/validation, of version 1.33.
"""

import re
from collections.abc import Iterator
from typing import Any

LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")  # RFC 1123
SERVICE = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")  # RFC 1035
QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|[kMGTPE]|[KMGTPE]i)?")
FACTORS = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
PATIENCE = 70  # seconds after which a run that finds no batch ends without saving: signals.py
LARGEST_CONFIG_MAP = 2**20

Manifest = dict[str, Any]


def faults(manifests: list[Manifest]) -> list[str]:
    """Everything that is wrong with some manifests that are applied together; [] if nothing is."""
    found = []
    for manifest in manifests:
        name = f"{manifest['kind']}/{manifest['metadata']['name']}"
        found += [f"{name}: {fault}" for fault in faults_of(manifest)]
    return found + list(of_services(manifests)) + list(of_claims(manifests))


def faults_of(manifest: Manifest) -> Iterator[str]:
    """What is wrong with one manifest."""
    kind, name, spec = manifest["kind"], manifest["metadata"]["name"], manifest.get("spec", {})
    if not (SERVICE if kind == "Service" else LABEL).fullmatch(name):
        yield "its name is no DNS label"
    if kind == "Job":
        yield from of_job(name, spec)
    if kind == "Deployment":
        yield from of_deployment(spec)
    if kind in ("Job", "Deployment"):
        yield from of_pod(spec["template"]["spec"])
    if kind == "ConfigMap" and sum(map(len, manifest.get("data", {}).values())) > LARGEST_CONFIG_MAP:
        yield "it is larger than 1 MiB"
    if kind == "Secret":
        yield "a secret stands in a file"


def of_job(name: str, spec: Manifest) -> Iterator[str]:
    pod = spec["template"]["spec"]
    policy = spec.get("podFailurePolicy")
    indexed = spec.get("completionMode") == "Indexed"
    if pod.get("restartPolicy") not in ("Never", "OnFailure"):
        yield "a Job's restartPolicy is Never or OnFailure"
    if policy and pod.get("restartPolicy") != "Never":
        yield "podFailurePolicy needs restartPolicy: Never"
    if policy and spec.get("podReplacementPolicy", "Failed") != "Failed":
        yield "podFailurePolicy allows no podReplacementPolicy but Failed"
    if spec.get("podReplacementPolicy") != "Failed":
        yield "two pods may be in a run's folder at once: podReplacementPolicy is not Failed"
    if indexed and not isinstance(spec.get("completions"), int):
        yield "Indexed needs completions"
    if indexed and len(f"{name}-{spec.get('completions', 1) - 1}") > 63:
        yield "its name and an index are too long for a host name"
    if "backoffLimitPerIndex" in spec and not indexed:
        yield "backoffLimitPerIndex needs completionMode: Indexed"
    if "backoffLimitPerIndex" in spec and pod.get("restartPolicy") != "Never":
        yield "backoffLimitPerIndex needs restartPolicy: Never"
    if "maxFailedIndexes" in spec and "backoffLimitPerIndex" not in spec:
        yield "maxFailedIndexes needs backoffLimitPerIndex"
    if spec.get("parallelism", 1) > spec.get("completions", 1):
        yield "more pods at a time than there are"
    for rule in (policy or {}).get("rules", ()):
        yield from of_rule(rule, spec)


def of_rule(rule: Manifest, spec: Manifest) -> Iterator[str]:
    names = [container["name"] for container in spec["template"]["spec"]["containers"]]
    if ("onExitCodes" in rule) == ("onPodConditions" in rule):
        yield "a rule needs either onExitCodes or onPodConditions"
    if rule["action"] == "FailIndex" and "backoffLimitPerIndex" not in spec:
        yield "FailIndex needs backoffLimitPerIndex"
    codes = rule.get("onExitCodes", {})
    values = codes.get("values", [1])
    if values != sorted(set(values)) or not 0 < len(values) <= 255:
        yield "exit codes have to be in order, each once"
    if 0 in values and codes.get("operator") == "In":
        yield "exit code 0 is no failure"
    if codes.get("containerName", names[0]) not in names:
        yield f"there is no container {codes['containerName']}"


def of_deployment(spec: Manifest) -> Iterator[str]:
    if spec["template"]["spec"].get("restartPolicy", "Always") != "Always":
        yield "a Deployment's restartPolicy is Always"
    wanted, given = spec["selector"]["matchLabels"], spec["template"]["metadata"]["labels"]
    if not wanted.items() <= given.items():
        yield "its selector does not select its own pods"


def of_pod(pod: Manifest) -> Iterator[str]:
    volumes = {volume["name"] for volume in pod.get("volumes", ())}
    if pod.get("terminationGracePeriodSeconds", 30) <= PATIENCE:
        yield "a run that saves may be killed: terminationGracePeriodSeconds is too short"
    if pod.get("automountServiceAccountToken", True):
        yield "the pod gets a token for the cluster's API, and needs none"
    user = pod.get("securityContext", {})
    if not user.get("runAsNonRoot") or user.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "the restricted profile wants runAsNonRoot and seccompProfile: RuntimeDefault"
    for container in [*pod.get("initContainers", ()), *pod["containers"]]:
        yield from of_container(container, volumes)


def of_container(container: Manifest, volumes: set[str]) -> Iterator[str]:
    if "image" not in container:
        yield "a container has no image"
    if "command" in container:
        yield "`command` takes the place of the image's ENTRYPOINT, which hands signals on: use `args`"
    mounts = container.get("volumeMounts", ())
    if missing := {mount["name"] for mount in mounts} - volumes:
        yield f"no volume is called {', '.join(sorted(missing))}"
    if len({mount["mountPath"] for mount in mounts}) < len(mounts):
        yield "two volumes are mounted at one place"
    environment = container.get("env", ())
    if len({variable["name"] for variable in environment}) < len(environment):
        yield "a variable is there twice"
    if any(re.search("KEY|TOKEN|SECRET", variable["name"]) and "value" in variable for variable in environment):
        yield "a secret stands in a file"

    security = container.get("securityContext", {})
    if security.get("allowPrivilegeEscalation", True) or security.get("capabilities", {}).get("drop") != ["ALL"]:
        yield "the restricted profile wants allowPrivilegeEscalation: false and no capabilities"

    ports = {port["name"]: port["containerPort"] for port in container.get("ports", ())}
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        port = container.get(probe, {}).get("httpGet", {}).get("port")
        if isinstance(port, str) and port not in ports:
            yield f"{probe} asks a port that is not there: {port}"
    yield from of_resources(container.get("resources", {}))


def of_resources(resources: Manifest) -> Iterator[str]:
    requests, limits = resources.get("requests", {}), resources.get("limits", {})
    for value in [*requests.values(), *limits.values()]:
        if not QUANTITY.fullmatch(str(value)):
            yield f"{value} is no quantity"
            return
    if not {"cpu", "memory"} <= set(requests):
        yield "a pod that asks for no CPU or memory is the first to be evicted"
    if any("/" in name and name not in limits for name in requests):
        yield "GPUs are asked for in `limits`"
    for name in set(requests) & set(limits):
        if number(requests[name]) > number(limits[name]):
            yield f"it asks for more {name} than it may have"


def number(quantity: Any) -> float:
    digits, unit = re.fullmatch(r"([0-9.]+)([a-zA-Z]*)", str(quantity)).groups()
    return float(digits) * FACTORS.get(unit, 1)


def of_services(manifests: list[Manifest]) -> Iterator[str]:
    """A Service whose selector or port no pod has answers nobody."""
    pods = [each["spec"]["template"] for each in manifests if each["kind"] == "Deployment"]
    for service in (each for each in manifests if each["kind"] == "Service"):
        selector = service["spec"]["selector"]
        found = [pod for pod in pods if selector.items() <= pod["metadata"]["labels"].items()]
        if not found:
            yield f"Service/{service['metadata']['name']}: it selects no pod"
        open_ports = {
            port["name"]
            for pod in found
            for container in pod["spec"]["containers"]
            for port in container.get("ports", ())
        }
        if any(port["targetPort"] not in open_ports for port in service["spec"]["ports"] if found):
            yield f"Service/{service['metadata']['name']}: its pods have no such port"


def of_claims(manifests: list[Manifest]) -> Iterator[str]:
    """A claim for one node keeps the pods of a Job off all others, and a Job's pods wait for each other."""
    claims = {each["metadata"]["name"]: each["spec"] for each in manifests if each["kind"] == "PersistentVolumeClaim"}
    for job in (each for each in manifests if each["kind"] == "Job"):
        for volume in job["spec"]["template"]["spec"].get("volumes", ()):
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            if claim in claims and claims[claim]["accessModes"] != ["ReadWriteMany"]:
                yield f"PersistentVolumeClaim/{claim}: pods on other nodes can't have it: it is not ReadWriteMany"
