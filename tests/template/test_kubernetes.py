"""Kubernetes manifests, as kubectl's kustomize builds them: by the schema of a server, and by rules that it lacks.

There is no cluster here. What a server checks beyond the schema is in kubernetes_rules.py; each rule has a manifest
that must fail, which kubernetes-validate mostly passes.
"""

import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes_rules
import ladder
import pytest
import yaml

TOOLS = Path(sys.executable).parent
FOLDERS = ("storage", "run", "agents", "sweep-server")
OPTIONS = ("kueue", "priority", "spot", "no-gpu", "settings", "mirror", "local-sweeps")


def build(folder: Path) -> list[dict]:
    """What `kubectl apply -k` would apply. It works without a cluster, and must not find one."""
    return list(yaml.safe_load_all(kustomize(folder)))


def kustomize(folder: Path) -> str:
    """The text of what a folder builds."""
    if not shutil.which("kubectl"):
        pytest.skip("there is no kubectl, whose kustomize builds the manifests")
    environment = {**os.environ, "KUBECONFIG": os.devnull}
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_valid(manifests: list[dict], place: Path) -> None:
    """By the schema, and by our own rules."""
    file = place / "manifests.yaml"
    file.write_text(yaml.safe_dump_all(manifests))
    done = subprocess.run([TOOLS / "kubernetes-validate", "--strict", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert kubernetes_rules.faults(manifests) == []


@pytest.mark.parametrize("answers", [{}, ladder.UNUSUAL_TEXT, {"project_slug": "007"}], ids=["defaults", "long", "007"])
def test_all_folders_build_and_would_be_accepted(answers, bake, tmp_path):
    project = bake(**answers, deployment="docker-kubernetes")
    manifests = [manifest for folder in FOLDERS for manifest in build(project / "kubernetes" / folder)]
    assert_valid(manifests, tmp_path)
    assert len({(each["kind"], each["metadata"]["name"]) for each in manifests}) == len(manifests)

    # What they name has to be there: claims, and what the pages tell the reader to make.
    claims = {each["metadata"]["name"] for each in manifests if each["kind"] == "PersistentVolumeClaim"}
    for volume in volumes_of(manifests):
        if "persistentVolumeClaim" in volume:
            assert volume["persistentVolumeClaim"]["claimName"] in claims


def volumes_of(manifests: list[dict]) -> list[dict]:
    pods = [each["spec"]["template"]["spec"] for each in manifests if "template" in each.get("spec", {})]
    return [volume for pod in pods for volume in pod.get("volumes", ())]


@pytest.mark.parametrize("option", OPTIONS)
def test_options_are_laid_over_by_one_line(option, bake, bake_to_edit, tmp_path):
    project = bake_to_edit(deployment="docker-kubernetes")
    base = project / "kubernetes" / "base" / "kustomization.yaml"
    target = re.search(rf"{option}\.yaml .*target: (.*)", base.read_text())[1]
    base.write_text(f"{base.read_text()}  - path: {option}.yaml\n    target: {target}\n")

    for folder in ("run", "agents"):
        changed = kustomize(project / "kubernetes" / folder)
        assert_valid(list(yaml.safe_load_all(changed)), tmp_path)
        assert changed != as_delivered(bake(deployment="docker-kubernetes") / "kubernetes" / folder)

    (job,) = build(project / "kubernetes" / "run")
    pod = job["spec"]["template"]["spec"]
    seen = {
        "kueue": job["metadata"].get("labels", {}).get("kueue.x-k8s.io/queue-name") == "user-queue",
        "priority": pod.get("priorityClassName") == "low-priority",
        "spot": "nodeSelector" in pod and "tolerations" in pod,
        "no-gpu": "nvidia.com/gpu" not in pod["containers"][0]["resources"]["limits"],
        "mirror": {"runs", "data"} <= {volume["name"] for volume in pod["volumes"] if volume.get("emptyDir") == {}},
        "local-sweeps": any(mount["name"] == "sweeps" for mount in pod["containers"][0]["volumeMounts"]),
        "settings": any(mount.get("subPath") == "base.yaml" for mount in pod["containers"][0]["volumeMounts"]),
    }
    assert [name for name, is_seen in seen.items() if is_seen] == [option]


def test_exit_codes_are_those_of_the_runs(bake):
    from lightning_hpc.runs.folder import EXIT_CODES

    for folder, wrong in (("run", "FailJob"), ("agents", "FailIndex")):
        (job,) = build(bake(deployment="docker-kubernetes") / "kubernetes" / folder)
        rules = job["spec"]["podFailurePolicy"]["rules"]
        by_action = {rule["action"]: rule["onExitCodes"]["values"] for rule in rules if "onExitCodes" in rule}
        assert by_action == {wrong: [2], "Ignore": [EXIT_CODES["preempted"], EXIT_CODES["time limit"]]}
        assert {"type": "DisruptionTarget", "status": "True"} in rules[-1]["onPodConditions"]


# Changes of the manifests after which a rule must have something to say; None removes what is there.
JOB, POD = ("spec",), ("spec", "template", "spec")
CONTAINER = (*POD, "containers", 0)
RULES = (*JOB, "podFailurePolicy", "rules")
SPOILED = [
    ("agents", "restartPolicy: Never", {(*POD, "restartPolicy"): "OnFailure"}),
    ("agents", "a Job's restartPolicy", {(*POD, "restartPolicy"): "Always"}),
    ("agents", "needs completionMode: Indexed", {(*JOB, "completionMode"): "NonIndexed"}),
    ("agents", "Indexed needs completions", {(*JOB, "completions"): None}),
    ("agents", "FailIndex needs", {(*JOB, "backoffLimitPerIndex"): None}),
    ("agents", "maxFailedIndexes needs", {(*JOB, "backoffLimitPerIndex"): None, (*JOB, "maxFailedIndexes"): 1}),
    ("agents", "no podReplacementPolicy but", {(*JOB, "podReplacementPolicy"): "TerminatingOrFailed"}),
    ("agents", "two pods may be", {(*JOB, "podReplacementPolicy"): None}),
    ("agents", "more pods at a time", {(*JOB, "parallelism"): 5}),
    ("agents", "in order, each once", {(*RULES, 1, "onExitCodes", "values"): [76, 75]}),
    ("agents", "0 is no failure", {(*RULES, 1, "onExitCodes", "values"): [0, 75]}),
    ("agents", "no container other", {(*RULES, 1, "onExitCodes", "containerName"): "other"}),
    ("agents", "either onExitCodes or", {(*RULES, 1, "onPodConditions"): [{"type": "X", "status": "True"}]}),
    ("agents", "too long for a host name", {("metadata", "name"): "a" * 62}),
    ("agents", "no DNS label", {("metadata", "name"): "Under_score"}),
    ("agents", "too short", {(*POD, "terminationGracePeriodSeconds"): 30}),
    ("agents", "needs none", {(*POD, "automountServiceAccountToken"): None}),
    ("agents", "wants runAsNonRoot", {(*POD, "securityContext", "runAsNonRoot"): False}),
    ("agents", "no capabilities", {(*CONTAINER, "securityContext", "capabilities"): None}),
    ("agents", "has no image", {(*CONTAINER, "image"): None}),
    ("agents", "use `args`", {(*CONTAINER, "command"): ["python"]}),
    ("agents", "no volume is called other", {(*CONTAINER, "volumeMounts", 0, "name"): "other"}),
    ("agents", "mounted at one place", {(*CONTAINER, "volumeMounts", 0, "mountPath"): "/dev/shm"}),
    ("agents", "is there twice", {(*CONTAINER, "env"): [{"name": "A", "value": "1"}] * 2}),
    ("agents", "stands in a file", {(*CONTAINER, "env"): [{"name": "WANDB_API_KEY", "value": "1"}]}),
    ("agents", "is no quantity", {(*CONTAINER, "resources", "requests", "memory"): "16 GB"}),
    ("agents", "first to be evicted", {(*CONTAINER, "resources", "requests"): {"cpu": "1"}}),
    ("agents", "asked for in `limits`", {(*CONTAINER, "resources", "requests", "amd.com/gpu"): 1}),
    ("agents", "more memory than", {(*CONTAINER, "resources", "requests", "memory"): "1Ti"}),
    ("sweep-server", "port that is not there", {(*CONTAINER, "ports", 0, "name"): "web"}),
    ("sweep-server", "Deployment's restartPolicy", {(*POD, "restartPolicy"): "Never"}),
    ("sweep-server", "select its own pods", {("spec", "template", "metadata", "labels", "app"): "other"}),
    ("sweep-server", "it selects no pod", {("spec", "template", "metadata", "labels", "app"): "other"}),
    ("sweep-server", "no such port", {(*CONTAINER, "ports", 0, "name"): "web"}),
]


as_delivered = functools.cache(kustomize)  # for tests that change what has been built, and not the files


@pytest.mark.parametrize("folder, fault, changes", SPOILED, ids=[fault for _, fault, _ in SPOILED])
def test_what_a_server_rejects_is_noticed(folder, fault, changes, bake):
    manifests = list(yaml.safe_load_all(as_delivered(bake(deployment="docker-kubernetes") / "kubernetes" / folder)))
    assert kubernetes_rules.faults(manifests) == []
    kind = {"agents": "Job", "sweep-server": "Deployment"}[folder]
    spoiled = next(manifest for manifest in manifests if manifest["kind"] == kind)
    for (*way, last), value in changes.items():
        place = spoiled
        for step in way:
            place = place[step]
        place[last] = value
        if value is None:
            del place[last]
    assert any(fault in found for found in kubernetes_rules.faults(manifests))


def test_other_kinds_are_looked_at_too():
    named = {"metadata": {"name": "x"}}
    (secret,) = kubernetes_rules.faults([{"kind": "Secret", **named}])
    (large,) = kubernetes_rules.faults([{"kind": "ConfigMap", **named, "data": {"a": "x" * 2**20 + "y"}}])
    (service,) = kubernetes_rules.faults(
        [{"kind": "Service", "metadata": {"name": "007"}, "spec": {"selector": {}, "ports": []}}]
    )[:1]
    assert "stands in a file" in secret and "1 MiB" in large and "no DNS label" in service


def test_a_claim_for_one_node_is_noticed(bake):
    project = bake(deployment="docker-kubernetes")
    manifests = [each for folder in ("storage", "agents") for each in build(project / "kubernetes" / folder)]
    assert kubernetes_rules.faults(manifests) == []
    claim = next(each for each in manifests if each["metadata"]["name"].endswith("-runs"))
    claim["spec"]["accessModes"] = ["ReadWriteOnce"]
    (fault,) = kubernetes_rules.faults(manifests)
    assert "not ReadWriteMany" in fault
