"""Real sites, as far as one machine has them: a preset's partitions, GPUs and rules for a SLURM of one's own.

Each kind of GPU gets nodes with as many as the preset says a node has, under the name that it gives for SLURM. What is
left of the six nodes is like the first one. Accounts are names here: there is no database that knows them.
"""

from typing import Any

from private_slurm import NODES

NODE = "NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 Port={{ports[{number}]}} CPUs=16 RealMemory=64000"
# A site where CPUs and memory come with a GPU.
SHARE = " DefCpuPerGPU=16 DefMemPerGPU=60000"
RULES = """\
function slurm_job_submit(job, partitions, user)
    if {account} and job.account == nil then
        slurm.log_user("a job needs a project code")
        return slurm.ERROR
    end
    if {share} and (job.cpus_per_task ~= slurm.NO_VAL16 or job.pn_min_memory ~= slurm.NO_VAL64) then
        slurm.log_user("CPUs and memory come with the GPU")
        return slurm.ERROR
    end
    return slurm.SUCCESS
end

function slurm_job_modify(job, record, partitions, user)
    return slurm.SUCCESS
end
"""


def site(preset: dict[str, Any]) -> dict[str, str]:
    """What PrivateSlurm takes to be such a cluster: `layout`, `gpus`, `rules`.

    Args:
        preset: the content of a file in configs/clusters.
    """
    names = preset.get("gpu_types", {})
    kinds = {kind for limits in preset["partitions"].values() for kind in limits["gpus"].items()}
    without = any(not limits["gpus"] for limits in preset["partitions"].values())
    groups: list[tuple[str, int] | None] = [*sorted(kinds, reverse=True), *([None] if without else [])]
    groups += groups[:1] * (len(NODES) - len(groups))

    layout, gpus = [], []
    for number, (node, group) in enumerate(zip(NODES, groups, strict=True)):
        line = NODE.format(node=node, number=number)
        if group:
            kind = names.get(group[0], group[0])
            line += f" Gres=gpu:{kind}:{group[1]}"
            gpus.append(f"NodeName={node} Name=gpu Type={kind} File={{folder}}/gpu[0-{group[1] - 1}]")
        layout.append(line)

    share = SHARE if preset.get("share_follows_gpus") else ""
    for number, (name, limits) in enumerate(preset["partitions"].items()):
        there = [node for node, group in zip(NODES, groups, strict=True) if has(limits, group)]
        time, default = limits.get("time", "UNLIMITED"), "NO" if number else "YES"
        layout.append(f"PartitionName={name} Nodes={','.join(there)} Default={default} MaxTime={time}{share}")

    rules = dict(account="account" in preset.get("required", []), share=bool(share))
    lua = RULES.format(**{name: str(value).lower() for name, value in rules.items()})
    return dict(layout="\n".join([*layout, ""]), gpus="\n".join([*gpus, ""]), rules=lua)


def has(limits: dict[str, Any], group: tuple[str, int] | None) -> bool:
    """Whether nodes with these GPUs belong to the partition; None: without any."""
    return group in limits["gpus"].items() if group else not limits["gpus"]
