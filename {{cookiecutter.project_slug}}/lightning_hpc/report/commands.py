"""The commands of Report.py: look into runs that were trained."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from ..hosts.fetching import fetch, place_here, rsync_command, source_of
from ..reproduction.compare import add_compare, print_comparison
from ..results.reading import read
from ..settings.errors import SettingsError
from ..settings.places import existing
from .receipts import verify
from .showing import add_pages, serve_page, write_page
from .table import add_table, print_table, runs_of

DESCRIPTION = "Look into runs that were trained."
EXAMPLES = """examples:
  python Report.py cka RUN                 the layers of a run's best checkpoint, with each other
  python Report.py cka RUN_A RUN_B         the layers of two runs, or of two checkpoints, with each other
  python Report.py cross-validation FOLDER the means of the folds in an experiment's folder
  python Report.py table                   all runs, with what differs between them and their metrics
  python Report.py table --latex a.tex     the same for a paper, each number with the runs it comes from
  python Report.py verify a.tex            whether these numbers still hold
  python Report.py compare RUN_A RUN_B     two runs or more side by side: settings, metrics, curves, code, environment
  python Report.py html                    all runs as one file for a browser, which can be mailed
  python Report.py serve                   the same from this machine, fresh at each reload
"""
CKA_HELP = """draw how alike layers are, by CKA on the validation data: 1 for the same representation up to rotation
and scale, about 0 for unrelated ones"""
CKA_EXAMPLES = """examples:
  python Report.py cka runs/default/000-0123abcd
  python Report.py cka runs/default/000-0123abcd/checkpoints/last.ckpt runs/default/001-trial=1-4567cdef
  python Report.py cka RUN_A RUN_B --layers 'block1.*' 'block2.*' --max_batches 20 --output pictures/a-b.png
"""
FOLDS_HELP = """mean and standard deviation of each metric over the folds of a cross-validation, also written to
cross-validation.json in the folder"""

VERIFY_HELP = """compute the numbers of a paper again from the runs that they come from, and name each that no longer
holds"""

RSYNC_HELP = """print the line that fetches the small files of runs from another machine: what is needed here, and no
checkpoints; --go runs it"""
RSYNC_EXAMPLES = """examples:
  python Report.py rsync me@login.example.org:my-project/runs            all runs, into fetched/me@login.example.org
  python Report.py rsync login.example.org:my-project/runs/wide --go     an experiment's, into …/wide, and at once
  python Report.py rsync hec --go                                        those of the host in configs/hosts/hec.yaml
"""


def main(argv: Sequence[str], root: Path) -> int:
    """Run one command line; returns the exit code.

    Args:
        argv: the command and its arguments.
        root: the project's folder.

    Raises:
        SettingsError, CheckpointError, CKAError: what was asked for can't be done.
    """
    arguments = parser().parse_args(argv)
    commands = {
        "cka": compare_runs,
        "cross-validation": cross_validation,
        "table": print_table,
        "verify": verify_numbers,
        "compare": print_comparison,
        "html": write_page,
        "serve": serve_page,
        "rsync": rsync_results,
    }
    return commands[arguments.command](arguments, root)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    raw = argparse.RawDescriptionHelpFormatter
    main = argparse.ArgumentParser(
        prog="python Report.py", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=raw
    )
    commands = main.add_subparsers(dest="command", required=True)

    cka = commands.add_parser("cka", help=CKA_HELP, description=CKA_HELP, epilog=CKA_EXAMPLES, formatter_class=raw)
    cka.add_argument(
        "run_a", type=existing, help="a run's folder, of which the best checkpoint is taken, or a checkpoint"
    )
    cka.add_argument("run_b", type=existing, nargs="?", help="another one; without it, run_a is compared with itself")
    cka.add_argument("--layers", nargs="+", metavar="NAME", help="names or globs; default: the network's parts")
    cka.add_argument("--layers_b", nargs="+", metavar="NAME", help="of run_b, where they have other names")
    cka.add_argument("--max_batches", type=int, metavar="N", help="use the first N batches; default: all")
    cka.add_argument("--output", type=Path, help="the picture, with its numbers beside it (default: in run_a's cka/)")
    cka.add_argument("--device", default="cpu", help="where to run the networks, such as cuda (default: cpu)")

    folds = commands.add_parser("cross-validation", help=FOLDS_HELP, description=FOLDS_HELP)
    folds.add_argument("experiment", type=existing, help="the experiment's folder, such as runs/wide")

    add_table(commands)
    check = commands.add_parser("verify", help=VERIFY_HELP, description=VERIFY_HELP)
    check.add_argument("file", type=Path, help="what `table --latex` has written, or a paper that holds it")
    check.add_argument("folders", type=existing, nargs="*", help="where the runs are; default: the project's runs")

    add_compare(commands)
    add_pages(commands)
    copy = commands.add_parser(
        "rsync", help=RSYNC_HELP, description=RSYNC_HELP, epilog=RSYNC_EXAMPLES, formatter_class=raw
    )
    copy.add_argument("source", metavar="HOST:FOLDER", help="as ssh knows the host; or a file's name in configs/hosts")
    copy.add_argument("target", nargs="?", type=Path, metavar="FOLDER", help="where it goes (default: in fetched/)")
    copy.add_argument("--go", action="store_true", help="run it")
    return main


def compare_runs(arguments: argparse.Namespace, root: Path) -> int:
    """Draw the CKA map of one run or two on the validation data of the first; returns the exit code."""
    from ..cka import compare  # late: torch takes seconds, and the other command needs none
    from ..training.evaluate import load

    run_a = load(arguments.run_a, root)
    model_b = None
    if arguments.run_b is not None:
        model_b = load(arguments.run_b, root).model

    batches = run_a.data.val_dataloader()
    if isinstance(batches, list | tuple):
        if not batches:
            raise SettingsError(f"{arguments.run_a} has no validation data: it was trained with data.mode final")
        batches = batches[0]

    result = compare(
        run_a.model.to(arguments.device),
        model_b,
        batches,
        layers=arguments.layers,
        layers_b=arguments.layers_b,
        max_batches=arguments.max_batches,
        labels=(str(arguments.run_a), str(arguments.run_b or arguments.run_a)),
    )
    output = arguments.output or map_of(arguments.run_a, arguments.run_b)
    result.save(output)
    for name, value in result.summary().items():
        print(f"{name:<30} {value:.4f}")
    print(f"picture: {output.with_suffix('.png')}, numbers: {output.with_suffix('.npz')}")
    return 0


def map_of(run_a: Path, run_b: Path | None) -> Path:
    """Where the map of a run, or of two, goes: into the first one's folder, named after the checkpoints."""
    folder = run_a if run_a.is_dir() else run_a.parent.parent
    name = "best" if run_a.is_dir() else run_a.stem
    if run_b is not None:
        name += f"-and-{run_b.name if run_b.is_dir() else run_b.stem}"

        # A checkpoint's name alone would not say whose it is.
        if not run_b.is_dir() and run_b.parent.parent != folder:
            name += f"-of-{run_b.parent.parent.name}"
    return folder / "cka" / f"{name}.png"


def cross_validation(arguments: argparse.Namespace, root: Path) -> int:
    """Write and print the means of all cross-validations in an experiment's folder; 1 if folds are missing."""
    from ..runs.folds import gather_cross_validations

    validations = gather_cross_validations(arguments.experiment)
    for validation in validations:
        print(validation.line())

    missing = sum(validation.folds - len(validation.runs) for validation in validations)
    if missing:
        print(f"error: {missing} folds are not done, and what lacks them is not in the file", file=sys.stderr)
        return 1
    return 0


def rsync_results(arguments: argparse.Namespace, root: Path) -> int:
    """Print the line that fetches results, or run it; returns the exit code."""
    source = source_of(arguments.source, root)
    target = arguments.target or place_here(source, root)
    if arguments.go:
        return fetch(source, target)
    print(shlex.join(rsync_command(source, target)))
    return 0


def verify_numbers(arguments: argparse.Namespace, root: Path) -> int:
    """Compute the numbers of a LaTeX file again; 1 if any does not hold.

    Raises:
        SettingsError: there is no such file, or it has no receipts.
    """
    try:
        text = arguments.file.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise SettingsError(f"{arguments.file} can't be read: {error}") from None

    folders = arguments.folders or [runs_of(root)]
    count, problems = verify(text, read(*folders))
    if not count:
        raise SettingsError(f"{arguments.file} has no \\receipt: `Report.py table --latex` writes them")

    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    print(f"{count - len(problems)} of {count} numbers hold")
    return 1 if problems else 0
