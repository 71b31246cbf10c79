"""A SLURM of one's own for tests: real daemons on the loopback interface, started in a second, no root, no database.

    with PrivateSlurm() as slurm:
        job = slurm.sbatch("--wrap=hostname")
        slurm.wait_for(job, "COMPLETED")

Six nodes of 8 CPUs and 8 pretended GPUs. Jobs of the partition `high` preempt those of `restless` at once and those of
`patient` after 15 s; nodes of `failing` may be made to fail; nothing disturbs `main`.
Needs the Debian packages slurmctld, slurmd and slurm-client, or others with the same programs.
"""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "srun")
# The daemons are in /usr/sbin, which is not on every user's PATH.
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
NODES = tuple(f"127.0.0.{number}" for number in range(1, 7))  # names that resolve everywhere, so MASTER_ADDR works

CONFIG = """\
ClusterName=t{port}
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
# The shortest that is accepted; it decides how long a requeued job waits.
AuthInfo=cred_expire=5
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/ctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/log/ctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/{gather}
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobcomp.txt
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=100
SchedulerParameters=sched_interval=1,bf_interval=1
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
SlurmdParameters=config_overrides
KillWait=5
MinJobAge=3600
MailProg=/bin/true
"""

# Which nodes there are and what is on them, and the partitions; and which GPUs the nodes have.
LAYOUT = """\
NodeName=127.0.0.[1-6] NodeHostname=localhost NodeAddr=127.0.0.1 Port={first}-{last} CPUs=8 RealMemory=8000 Gres=gpu:8
PartitionName=main Nodes=127.0.0.[1-2] Default=YES MaxTime=2-0 DefaultTime=10 PriorityTier=1
PartitionName=patient Nodes=127.0.0.3 MaxTime=2-0 DefaultTime=10 PriorityTier=1 GraceTime=15
PartitionName=restless Nodes=127.0.0.4 MaxTime=2-0 DefaultTime=10 PriorityTier=1
PartitionName=failing Nodes=127.0.0.[5-6] MaxTime=2-0 DefaultTime=10 PriorityTier=1
PartitionName=high Nodes=127.0.0.[3-4] MaxTime=1-0 DefaultTime=10 PriorityTier=10
"""
GPUS = "Name=gpu File={folder}/gpu[0-7]\n"

# An sbatch that writes its command line down before it goes on as the real one. Where `limit_queue` was called it says
# no, in SLURM's words, as one with MaxSubmitJobs does: that needs accounting, which is not here.
SBATCH = """\
#!/bin/sh
printf "%s\\n" "$*" >> {folder}/sbatch-calls
if [ -f {folder}/queue-limit ]; then
    asked=1
    for argument; do
        case $argument in --array=*)
            spans=$(echo "${{argument#--array=}}" | sed 's/%.*//' | tr ',' '\\n')
            asked=$(echo "$spans" | awk -F- '{{ n += $2 == "" ? 1 : $2 - $1 + 1 }} END {{ print n }}')
        esac
    done
    there=$(squeue --noheader --array --user="$(id -u)" | wc -l)
    if [ $((there + asked)) -gt "$(cat {folder}/queue-limit)" ]; then
        echo "sbatch: error: QOSMaxSubmitJobPerUserLimit" >&2
        echo "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit)" >&2
        exit 1
    fi
fi
exec {sbatch} "$@"
"""


# Without cgroups SLURM measures memory once a second, and kills the step that needs more than it has asked for.
LIMITED_MEMORY = """\
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
"""


def missing() -> list[str]:
    """The programs that are not installed."""
    return [program for program in PROGRAMS if not shutil.which(program, path=PATH)]


def free_ports(count: int) -> int:
    """The first of `count` consecutive free ports."""
    # Processes of the tests have consecutive ids, and look at the same time: each begins with ports of its own.
    for first in range(20000 + os.getpid() * count % 20000, 60000, count):
        sockets = [socket.socket() for _ in range(count)]
        try:
            for offset, each in enumerate(sockets):
                each.bind(("127.0.0.1", first + offset))
            return first
        except OSError:
            continue
        finally:
            for each in sockets:
                each.close()
    raise OSError("no free ports")


class PrivateSlurm:
    """The daemons, and what a user would type.

    Args:
        limits_memory: kill what needs more memory than it has asked for.
        layout: other nodes and partitions, as lines of slurm.conf.
        gpus: their GPUs, as lines of gres.conf.
        rules: what the site refuses, as a job_submit.lua.
    """

    def __init__(self, limits_memory: bool = False, layout: str = LAYOUT, gpus: str = GPUS, rules: str = "") -> None:
        self.limits_memory, self.layout, self.gpus, self.rules = limits_memory, layout, gpus, rules

    def __enter__(self) -> "PrivateSlurm":
        # Short: a path of about 100 characters would be too long for a Unix socket.
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-"))
        self.daemons: dict[str, subprocess.Popen] = {}
        self.calls = self.folder / "sbatch-calls"
        port = free_ports(1 + len(NODES))
        for name in ("state", "log", "spool", "bin"):
            (self.folder / name).mkdir()
        values = dict(port=port, first=port + 1, last=port + len(NODES), folder=self.folder, user=getpass.getuser())
        values["gather"] = "linux" if self.limits_memory else "none"
        values["ports"] = range(port + 1, port + 1 + len(NODES))
        config = CONFIG + self.layout + (LIMITED_MEMORY if self.limits_memory else "")
        if self.rules:
            config += "JobSubmitPlugins=lua\n"
            (self.folder / "job_submit.lua").write_text(self.rules)
        (self.folder / "slurm.conf").write_text(config.format(**values))
        for number in range(8):
            (self.folder / f"gpu{number}").symlink_to(os.devnull)
        (self.folder / "gres.conf").write_text(self.gpus.format(folder=self.folder))

        counting = self.folder / "bin" / "sbatch"
        counting.write_text(SBATCH.format(folder=self.folder, sbatch=shutil.which("sbatch", path=PATH)))
        counting.chmod(0o755)
        self.environment = os.environ | {
            "SLURM_CONF": str(self.folder / "slurm.conf"),
            "PATH": os.pathsep.join([str(counting.parent), str(Path(sys.executable).parent), PATH]),
        }
        try:
            self.start("slurmctld", "-D")
            for node in NODES:
                self.start("slurmd", "-D", "-N", node, name=node)
            self.wait(
                lambda: len(self.run("sinfo", "-h", "-N", "-t", "idle", "-o", "%N").split()) >= len(NODES),
                "all nodes to be idle",
            )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.clear()
        finally:  # slurmd before slurmctld, but only after the jobs: else their steps would be left behind
            for daemon in reversed(self.daemons.values()):
                daemon.send_signal(signal.SIGTERM)
                try:
                    daemon.wait(10)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()
            shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, program: str, *arguments: str, name: str | None = None) -> None:
        """Start a daemon and remember it by its name."""
        command = [shutil.which(program, path=PATH), *arguments]
        silent = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        self.daemons[name or program] = subprocess.Popen(command, env=self.environment, **silent)

    def kill_slurmd(self, node: str) -> None:
        """kill -9 of a node's slurmd; its jobs live on."""
        self.daemons[node].kill()
        self.daemons[node].wait()

    def fail_node(self, node: str) -> None:
        """A power cut: kill -9 of a node's slurmd and of all that runs there, which SLURM notices at once.

        A node that is only set to DOWN would still run the old job beside the new one, and hold its run's lock.
        """
        self.kill_slurmd(node)
        self.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
        here = {f"SLURMD_NODENAME={node}".encode(), f"SLURM_CONF={self.folder}/slurm.conf".encode()}
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended in the meantime, or is another user's
                if here <= set((process / "environ").read_bytes().split(b"\0")):
                    os.kill(int(process.name), signal.SIGKILL)

    def revive_node(self, node: str) -> None:
        """Start a node's slurmd again."""
        self.start("slurmd", "-D", "-N", node, name=node)

    def run(self, *command: str, check: bool = True, **options: Any) -> str:
        """The output of a command that finds this SLURM."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, **options)
        assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def sbatch(self, *arguments: str | Path, **options: Any) -> str:
        """Submit by hand; returns the job's id."""
        return self.run("sbatch", "--parsable", *map(str, arguments), **options)

    def sbatch_calls(self) -> list[str]:
        """The command lines of all calls of sbatch so far."""
        return self.calls.read_text().splitlines() if self.calls.exists() else []

    def job(self, job: str) -> dict[str, str]:
        """What SLURM knows about a job or an array element (A_N): {"JobState": "RUNNING", "Restarts": "0", …}."""
        text = self.run("scontrol", "show", "job", job, "-o")
        return dict(word.split("=", 1) for word in text.splitlines()[0].split() if "=" in word)

    def states(self, job: str) -> dict[str, str]:
        """State of each element of an array that SLURM still knows: {"12_3": "COMPLETED"}."""
        lines = self.run("squeue", "-h", "-r", "-t", "all", "-j", job, "-o", "%i %T").splitlines()
        return dict(line.split() for line in lines)

    def limit_queue(self, most: int | None) -> None:
        """Refuse jobs that would make it more than so many in the queue, elements of arrays included; None: any."""
        file = self.folder / "queue-limit"
        if most is None:
            file.unlink(missing_ok=True)
        else:
            file.write_text(str(most))

    def clear(self) -> None:
        """Cancel all jobs and wait until none is left."""
        # A job that was on a node without a slurmd would be completing for ever.
        for node in NODES:
            if node in self.daemons and self.daemons[node].poll() is not None:
                self.revive_node(node)

        user = getpass.getuser()
        for job in self.run("squeue", "-h", "--user", user, "-o", "%A", check=False).split():
            self.run("scontrol", "update", f"JobId={job}", "Requeue=0", check=False)
        self.run("scancel", "--user", user, check=False)
        for node in NODES:  # back from what a test has done to it
            self.run("scontrol", "update", f"NodeName={node}", "State=RESUME", check=False)
        self.wait(lambda: not self.run("squeue", "-h", "--user", user, check=False), "the queue to be empty", 60)

    def wait_for(self, jobs: str | Iterable[str], *states: str, seconds: float = 600, logs: Path | None = None) -> None:
        """Wait until every job is in one of the states.

        Args:
            jobs: ids of jobs or array elements.
            states: such as COMPLETED, FAILED.
            seconds: how long to wait at most.
            logs: a folder whose *.log and *.out files are shown when the time is over.
        """
        jobs = [jobs] if isinstance(jobs, str) else list(jobs)
        self.wait(lambda: all(self.job(job)["JobState"] in states for job in jobs), f"{jobs}: {states}", seconds, logs)

    def wait(self, ready: Callable[[], Any], what: str, seconds: float = 600, logs: Path | None = None) -> None:
        """Wait until `ready` says so; else fail with what the queue and the logs hold."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if ready():
                return
            time.sleep(0.2)
        lines = [f"waited {seconds} s for {what}", self.run("squeue", "-r", "-t", "all", check=False)]
        for file in sorted([*logs.rglob("*.log"), *logs.rglob("*.out")] if logs else []):
            lines.append(f"== {file}\n" + file.read_text(errors="replace")[-2000:])
        lines += [f"== {file.name}\n" + file.read_text()[-1500:] for file in sorted((self.folder / "log").iterdir())]
        raise AssertionError("\n".join(lines))
