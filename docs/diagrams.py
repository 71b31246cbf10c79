"""Diagrams of what is written down elsewhere: the rooms and who imports whom, and the life of a run.

Both are drawn by `dot` of Graphviz. The first is read from the table of the import test, and a test reads it back from
the picture; the exit codes in the second are those of the code.
"""

import subprocess
from graphlib import TopologicalSorter
from pathlib import Path

DOCS = Path(__file__).parent
INK, LINE, PALE, ACCENT = "#1f2933", "#8a94a0", "#eef2f6", "#d7ebff"
FONT = "DejaVu Sans, Verdana, sans-serif"

HEAD = f"""\
bgcolor="#ffffff" margin=0.15 pad=0.1
node [shape=box style="rounded,filled" fillcolor="{PALE}" color="{LINE}"]
node [fontname="{FONT}" fontsize=13 fontcolor="{INK}"]
edge [color="{LINE}" fontname="{FONT}" fontsize=11 fontcolor="{INK}" arrowsize=0.7]
"""


def draw(graph: str, file: Path, title: str) -> None:
    """Draw a graph, which is written in Graphviz's language, with a title for those who don't see it."""
    text = f'digraph "{title}" {{\n{HEAD}{graph}}}\n'
    subprocess.run(["dot", "-Tsvg", "-o", str(file)], input=text, text=True, check=True)

    # Graphviz's comments hold its version, which would change the file on another machine.
    drawn = file.read_text(encoding="utf-8")
    file.write_text(drawn[drawn.index("<svg") :], encoding="utf-8")


def rooms(may_import: dict[str, set[str]], with_torch: set[str]) -> str:
    """The rooms, each above those that it may import. What follows from other arrows is left out."""
    lines = ['rankdir=TB ranksep=0.55 nodesep=0.16 newrank=true\nlabelloc=b fontname="DejaVu Sans" fontsize=12']
    lines.append('label="An arrow: may import. Arrows that follow from others are left out. Blue: imports PyTorch."')
    for room in sorted(may_import):
        colour = f' fillcolor="{ACCENT}"' if room in with_torch else ""
        lines.append(f'"{room}" [label="{room}"{colour}]')
    for room, below in sorted(without_detours(may_import).items()):
        lines += [f'"{room}" -> "{other}"' for other in sorted(below)]
    return "\n".join(lines) + "\n"


def reachable(arrows: dict[str, set[str]]) -> dict[str, set[str]]:
    """Each room, and all to which a way of arrows leads."""
    ways: dict[str, set[str]] = {}
    for room in TopologicalSorter(arrows).static_order():
        below = arrows.get(room, set())
        ways[room] = below.union(*(ways[other] for other in below))
    return ways


def without_detours(arrows: dict[str, set[str]]) -> dict[str, set[str]]:
    """The fewest arrows with the same ways: the transitive reduction."""
    ways = reachable(arrows)
    return {room: {other for other in below if not any(other in ways[step] for step in below)}
            for room, below in arrows.items()}  # fmt: skip


def life(codes: dict[str, int]) -> str:
    """What a run does from its start to its end, and what brings it back."""
    code = {state: f"{state}: exit code {number}" for state, number in codes.items()}
    return f"""\
rankdir=TB ranksep=0.45 nodesep=0.35
start [label="python Train.py fit …"]
look [label="looks into its folder:\nis there a whole checkpoint?"]
train [label="trains, with a checkpoint every N steps or minutes" fillcolor="{ACCENT}"]
save [label="saves at the start of the next batch" fillcolor="{ACCENT}"]
done [label="{code["done"]}"]
failed [label="{code["failed"]}\nreason in status.json"]
preempted [label="{code["preempted"]}"]
limit [label="{code["time limit"]}"]
interrupted [label="{code["interrupted"]}"]
killed [label="killed outright\nits last checkpoint stays"]
queue [label="SLURM puts it back into the queue:\nthe same command"]
you [label="you start it again: the same command,\nor SlurmTrain.py retry"]
again [label="looks into its folder: resumes to the bit" fillcolor="{ACCENT}"]

start -> look
look -> train [label=" no: from step 0\\l yes: from its step\\l"]
train -> save [label=" a signal"]
train -> done [label=" last epoch"]
train -> failed [label=" an exception"]
train -> killed [label=" SIGKILL, power cut,\\l node down\\l"]
save -> preempted [label=" SIGTERM, SIGHUP"]
save -> limit [label=" SIGUSR1"]
save -> interrupted [label=" Ctrl-C"]
preempted -> queue
limit -> queue
killed -> queue [label=" node down "]
killed -> you
failed -> you
interrupted -> you
queue -> again
you -> again
"""
