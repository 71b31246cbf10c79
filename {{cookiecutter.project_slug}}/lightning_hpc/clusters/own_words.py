"""What a cluster says of itself: its partitions and limits, from sinfo, scontrol and sacctmgr, where they answer."""

import getpass
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ..scheduler.commands import NoAnswer, ask

UNTYPED = "gpu"  # stands for the type of GPUs that SLURM has no name for

NOTHING = ("", "N/A", "(null)", "UNLIMITED", "INFINITE", "NONE")  # SLURM's words for no limit and no value


@dataclass
class OwnWords:
    """What a cluster says of itself.

    Attributes:
        name: what it is called.
        partitions: those that this user may see, the default one first: `time`, `gpus`, `gpus_per_user` and
            `jobs_per_user` of each, as far as they are known.
        array_limit: most elements of one array; None: not known.
        jobs_per_user: most jobs of this user in the queue; None: not limited, or not known.
        accounts: those that this user may name.
        answered: the commands that it is from.
        silent: what has not answered, and why.
    """

    name: str = ""
    partitions: dict[str, dict[str, Any]] = field(default_factory=dict)
    array_limit: int | None = None
    jobs_per_user: int | None = None
    accounts: list[str] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)

    def ask(self, *command: str) -> str:
        """The output of a command, and a note that it has answered; "" with a note of its words if it does not."""
        shown = " ".join(word for word in command[:3] if not word.startswith("-"))
        try:
            said = ask(command)
        except NoAnswer as error:
            self.silent.append(f"{shown}: {error.said}")
            return ""
        self.answered.append(shown)
        return said


def ask_cluster() -> OwnWords:
    """Ask the cluster that this machine belongs to.

    Raises:
        NoAnswer: it does not say which partitions it has.
    """
    words = OwnWords()
    partitions = words.ask("scontrol", "show", "partition", "--oneliner")
    if not words.answered:
        raise NoAnswer("scontrol show partition", words.silent[0].partition(": ")[2])

    of_qos = read_partitions(words, partitions)
    read_gpus(words, words.ask("sinfo", "--noheader", "--format=%R|%G").splitlines())
    config = read_config(words.ask("scontrol", "show", "config"))
    words.name = config.get("ClusterName", "")
    if config.get("MaxArraySize", "").isdigit():
        words.array_limit = int(config["MaxArraySize"])
    read_accounts(words, of_qos)
    return words


def read_partitions(words: OwnWords, text: str) -> dict[str, str]:
    """Note the partitions that take a user's jobs; returns the QOS with limits of those that have one."""
    found, of_qos = [], {}
    for line in text.splitlines():
        said = dict(word.split("=", 1) for word in line.split() if "=" in word)
        name = said.get("PartitionName")
        closed = said.get("RootOnly") == "YES" or said.get("ReqResv") == "YES" or said.get("State") == "INACTIVE"
        if not name or closed:
            continue
        limits = {} if said.get("MaxTime", "") in NOTHING else {"time": said["MaxTime"]}
        found.append((said.get("Default") != "YES", name, limits))
        if said.get("QoS", "") not in NOTHING:
            of_qos[name] = said["QoS"]

    found.sort(key=lambda each: each[0])
    words.partitions = {name: limits for _, name, limits in found}
    return of_qos


def read_gpus(words: OwnWords, lines: Iterable[str]) -> None:
    """Note which GPUs the nodes of each partition have, from lines PARTITION|GRES; {} for a partition without any."""
    for line in lines:
        name, _, gres = line.partition("|")
        if name not in words.partitions:
            continue
        gpus = words.partitions[name].setdefault("gpus", {})
        # gpu:a100:4(S:0-1),gpu:a30:2
        for kind, number in re.findall(r"\bgpu:(?:([^:,(]+):)?(\d+)", gres):
            gpus[kind or UNTYPED] = max(int(number), gpus.get(kind or UNTYPED, 0))


def read_config(text: str) -> dict[str, str]:
    """The lines `Name = value` of scontrol show config."""
    pairs = [line.split("=", 1) for line in text.splitlines() if "=" in line]
    return {name.strip(): value.strip() for name, value in pairs}


def read_accounts(words: OwnWords, of_qos: dict[str, str]) -> None:
    """Note this user's accounts and limits, where the cluster keeps accounts.

    Args:
        words: what is known so far.
        of_qos: the QOS of each partition that has one.
    """
    columns = "--format=Account,MaxSubmitJobs,DefaultQOS"
    told = words.ask("sacctmgr", "show", "assoc", f"user={getpass.getuser()}", "--noheader", "--parsable2", columns)
    associations = [line.split("|") for line in told.splitlines() if line.count("|") == 2]
    if not associations:
        return

    columns = "--format=Name,MaxSubmitJobsPerUser,MaxTRESPerUser"
    told = words.ask("sacctmgr", "show", "qos", "--noheader", "--parsable2", columns)
    qos = {name: (jobs, tres) for name, jobs, tres in (line.split("|") for line in told.splitlines() if "|" in line)}
    words.accounts = sorted({account for account, _, _ in associations})

    # A user with several accounts may have several limits: the largest refuses nothing that one of them takes.
    limits = []
    for _, most, default in associations:
        both = [number(most), number(qos.get(default, ("", ""))[0])]
        limits.append(min((limit for limit in both if limit), default=None))
    words.jobs_per_user = None if None in limits else max(limits)

    for partition, name in of_qos.items():
        jobs, tres = qos.get(name, ("", ""))
        gpus = re.search(r"gres/gpu=(\d+)", tres)
        more = {"gpus_per_user": int(gpus[1]) if gpus else None, "jobs_per_user": number(jobs)}
        words.partitions[partition] |= {key: value for key, value in more.items() if value}


def number(text: str) -> int | None:
    """A limit as sacctmgr prints it; None: there is none, or one with which nothing could be submitted in waves."""
    return int(text) if text.isdigit() and int(text) > 1 else None
