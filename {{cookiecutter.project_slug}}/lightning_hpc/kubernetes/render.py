"""`SlurmTrain.py render --kubernetes`: the Job of a planned experiment, whose completion index is the manifest's index.

An experiment is the same folder for SLURM and for Kubernetes: manifest, frozen settings, a copy of the code. It is sent
to the claim of the project, and each pod starts `Train.py fit --run FOLDER --index N` in it, as each job would.
"""

import argparse
import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..clusters.consequences import trainer_settings
from ..clusters.resources import Resources, from_command_line, read_resources
from ..experiments.experiment import RESOURCES, Experiment, only_submission
from ..experiments.writing import write
from ..files import write_atomically
from ..planning.plan import Plan, plan
from ..planning.specification import read_specification
from ..printing import counted
from ..runs.folder import EXIT_CODES
from ..runs.manifest import MANIFEST
from ..settings.errors import SettingsError
from ..settings.places import command, quoted, shown
from ..settings.yaml_files import read_yaml
from ..slurm.asked import written_down
from ..slurm.batch import templates
from ..slurm.submission import check_plan
from .pods import Pod, left_out, pod_of, resources_of

MANIFESTS = "kubernetes"  # the project's manifests; in an experiment's folder, those of its Job

SENT = (MANIFEST, "configs", "spec.yaml", RESOURCES)  # of an experiment's folder, beside the code; not its runs

WRONG_USAGE = 2  # Train.py's exit code for settings that another try does not change

LONGEST_LABEL = 63  # characters of a pod's host name, which is the Job's name and the index


def render_job(arguments: argparse.Namespace, root: Path) -> int:
    """`render --kubernetes`: plan and check an experiment, or take a planned one, and write its Job.

    Args:
        arguments: the command line, with `kubernetes`: a specification, or a planned experiment's folder.
        root: the project's folder.

    Raises:
        SettingsError: the project has no manifests, or Kubernetes can't serve what is asked for.
    """
    base = root / MANIFESTS / "base"
    if not base.is_dir():
        raise SettingsError(f"there is no {base}: it comes with the template's answer deployment=docker-kubernetes")
    if arguments.cluster:
        raise SettingsError("--cluster names a SLURM cluster: leave it out with --kubernetes")

    source: Path = arguments.kubernetes
    if (source / MANIFEST).is_file():
        return render_planned(arguments, Experiment(source), root)
    return render_specification(arguments, source, root)


def render_planned(arguments: argparse.Namespace, experiment: Experiment, root: Path) -> int:
    """Write the Job of an experiment that is there already: runs that are done end at once, the others resume."""
    if arguments.name:
        raise SettingsError(f"--name {arguments.name}: {experiment.shown} is planned already and has its name")
    asked = asked_for(arguments, root, experiment.resources)
    resources = resources_of(asked)
    if other := trainer_settings(resources, experiment.settings, {}):
        raise SettingsError(f"the runs were planned with other devices than these resources give ({other})")

    texts = manifests(experiment, len(experiment.rows), experiment.code.name, pod_of(resources), root)
    return show_or_write(arguments, experiment, texts, asked, resources, len(experiment.rows), root)


def render_specification(arguments: argparse.Namespace, source: Path, root: Path) -> int:
    """Plan and check the runs of a specification, write the experiment's folder, and its Job."""
    spec = read_specification(source)
    asked = asked_for(arguments, root, spec.get("resources") or {})
    resources = resources_of(asked)
    planned = plan(spec, root, arguments.name, lambda settings: trainer_settings(resources, settings, asked))
    refuse_another(planned, root)
    print("\n".join([planned.summary(), *planned.notes]))
    check_plan(planned)

    experiment = Experiment(planned.folder, planned=False)
    if not arguments.dry_run:
        planned.folder.parent.mkdir(parents=True, exist_ok=True)
        with only_submission(planned.folder.resolve()):
            refuse_another(planned, root)
            experiment = write(planned, root, asked, source.read_text(encoding="utf-8"))

    texts = manifests(experiment, len(planned.runs), "code", pod_of(resources), root)
    return show_or_write(arguments, experiment, texts, asked, resources, len(planned.runs), root)


def refuse_another(planned: Plan, root: Path) -> None:
    """Keep an experiment that is there already: its runs may be on their way."""
    if (planned.folder / MANIFEST).exists():
        again = command("SlurmTrain.py", "render", "--kubernetes", shown(planned.folder))
        raise SettingsError(f"{shown(planned.folder)} is planned already: {again}, or give this one another --name")


def asked_for(arguments: argparse.Namespace, root: Path, earlier: Mapping[str, Any]) -> dict[str, Any]:
    """The resources: those of configs/slurm.yaml, over them `earlier`, over them the command line's."""
    typed = {name: from_command_line(name, text) for name, text in arguments.resources}
    return {**written_down(root, dict(earlier)), **read_resources(typed, "command line")}


def manifests(experiment: Experiment, runs: int, code: str, pod: Pod, root: Path) -> dict[str, str]:
    """File name → text of the Job, and of the kustomization that lays the project's own manifests over it.

    Args:
        experiment: the experiment.
        runs: how many it has.
        code: name of its copy of the code.
        pod: what each run gets.
        root: the project's folder.
    """
    jinja = templates(Path(__file__).parent / "templates")
    jinja.policies["json.dumps_kwargs"] = {"ensure_ascii": False}

    # In a pod the claim is the project's runs/, wherever the runs are here.
    folder = f"runs/{experiment.folder.name}"
    job = jinja.get_template("job.yaml.j2").render(
        experiment=experiment.folder.name,
        command="SlurmTrain.py render --kubernetes",
        name=job_name(f"{root.name}-{experiment.folder.name}", runs),
        runs=runs,
        parallelism=min(pod.throttle or runs, runs),
        code=f"{folder}/{code}/Train.py",
        folder=folder,
        pod=pod,
        wrong_usage=WRONG_USAGE,
        go_on=sorted([EXIT_CODES["preempted"], EXIT_CODES["time limit"]]),
    )
    target = experiment.folder.resolve() / MANIFESTS
    base = os.path.relpath((root / MANIFESTS / "base").resolve(), target)
    kustomization = jinja.get_template("kustomization.yaml.j2").render(base=base)
    return {"job.yaml": job, "kustomization.yaml": kustomization}


def job_name(text: str, runs: int) -> str:
    """A name that Kubernetes accepts: lower-case letters, digits and hyphens, short enough for the index behind it.

    Names that differ stay different: what had to be changed, or cut off, is replaced by a few digits of a hash.
    """
    room = LONGEST_LABEL - len(f"-{max(runs - 1, 0)}")
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if name == text and len(name) <= room:
        return name
    digits = hashlib.sha256(text.encode()).hexdigest()[:6]
    return f"{name[: room - 7].rstrip('-')}-{digits}".lstrip("-")


def show_or_write(
    arguments: argparse.Namespace,
    experiment: Experiment,
    texts: Mapping[str, str],
    asked: Mapping[str, Any],
    resources: Resources,
    runs: int,
    root: Path,
) -> int:
    """Print the manifests with --dry-run, else write them into the experiment's folder and say what to type next."""
    if ignored := left_out(asked):
        print(f"left out, since they are for SLURM: {', '.join(ignored)}")
    limited = f", {resources.throttle} at a time" if (resources.throttle or runs) < runs else ""
    print(f"{counted(runs, 'run')} × {pod_of(resources)}{limited}")

    folder = experiment.folder / MANIFESTS
    for name, text in texts.items():
        if arguments.dry_run:
            print(f"==> {shown(folder / name)} <==\n{text}", end="")
        else:
            folder.mkdir(exist_ok=True)
            write_atomically(folder / name, text)
    if not arguments.dry_run:
        print("\n".join(next_commands(experiment, root)))
    return 0


def next_commands(experiment: Experiment, root: Path) -> list[str]:
    """How the experiment gets to the claim, starts, and comes back; docs/kubernetes.md explains them."""
    name = read_yaml(root / MANIFESTS / "storage" / "shell.yaml")["metadata"]["name"]
    shell, here = f"deploy/{name}", quoted(experiment.shown)
    target = quoted(f"runs/{experiment.folder.name}")
    sent = " ".join([*SENT, experiment.code.name])
    return [
        f"written: {here}/{MANIFESTS}. With kubernetes/storage applied:",
        f"  tar -cf - -C {here} {sent} | kubectl exec -i {shell} -- tar -xf - --one-top-level={target}",
        f"  kubectl apply -k {here}/{MANIFESTS}",
        "and its results, without checkpoints, whenever you want to look at them:",
        f"  kubectl exec {shell} -- tar -cf - '--exclude=*.ckpt' {target} | tar -xf -",
    ]
