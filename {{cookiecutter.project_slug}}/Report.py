"""Look into runs that were trained.

Examples:

    python Report.py cka RUN                 the layers of a run's best checkpoint, with each other
    python Report.py cka RUN_A RUN_B         the layers of two runs, or of two checkpoints, with each other
    python Report.py cross-validation FOLDER the means of the folds in an experiment's folder
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
CKA_HELP = """draw how alike layers are, by CKA on the validation data: 1 for the same representation up to rotation
and scale, about 0 for unrelated ones"""
FOLDS_HELP = """mean and standard deviation of each metric over the folds of a cross-validation, also written to
cross-validation.json in the folder"""
CKA_EXAMPLES = """examples:
  python Report.py cka runs/default/000-0123abcd
  python Report.py cka runs/default/000-0123abcd/checkpoints/last.ckpt runs/default/001-trial=1-4567cdef
  python Report.py cka RUN_A RUN_B --layers 'block1.*' 'block2.*' --max_batches 20 --output pictures/a-b.png
"""


def main(argv: list[str]) -> int:
    """Run one command line; returns the exit code: 0 on success, 2 for wrong usage."""
    parser = argparse.ArgumentParser(
        prog="python Report.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    cka = commands.add_parser(
        "cka", help=CKA_HELP, description=CKA_HELP, epilog=CKA_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    cka.add_argument("run_a", type=Path, help="a run's folder, of which the best checkpoint is taken, or a checkpoint")
    cka.add_argument("run_b", type=Path, nargs="?", help="another one; without it, run_a is compared with itself")
    cka.add_argument("--layers", nargs="+", metavar="NAME", help="names or globs; default: the network's parts")
    cka.add_argument("--layers_b", nargs="+", metavar="NAME", help="of run_b, where they have other names")
    cka.add_argument("--max_batches", type=int, metavar="N", help="use the first N batches; default: all")
    cka.add_argument("--output", type=Path, default=Path("cka.png"), help="the picture; its numbers go beside it, .npz")
    cka.add_argument("--device", default="cpu", help="where to run the networks, such as cuda (default: cpu)")
    folds = commands.add_parser("cross-validation", help=FOLDS_HELP, description=FOLDS_HELP)
    folds.add_argument("experiment", type=Path, help="the experiment's folder, such as runs/wide")
    arguments = parser.parse_args(argv)
    return compare_runs(arguments) if arguments.command == "cka" else cross_validation(arguments.experiment)


def compare_runs(arguments: argparse.Namespace) -> int:
    """Draw the CKA map of one run or two on the validation data of the first."""
    from {{ cookiecutter.package_name }}.cka import CKAError, compare
    from {{ cookiecutter.package_name }}.runs.settings import SettingsError
    from {{ cookiecutter.package_name }}.training.checkpoint_files import CheckpointError
    from {{ cookiecutter.package_name }}.training.run import load_run

    paths = [path for path in (arguments.run_a, arguments.run_b) if path is not None]
    try:
        (model_a, data), *others = [load_run(path, ROOT) for path in paths]
        batches = data.val_dataloader()
        if isinstance(batches, list) and not batches:
            raise SettingsError(f"{paths[0]} has no validation data: it was trained with data.mode final")
        result = compare(
            model_a.to(arguments.device),
            others[0][0] if others else None,
            batches[0] if isinstance(batches, (list, tuple)) else batches,
            layers=arguments.layers,
            layers_b=arguments.layers_b,
            max_batches=arguments.max_batches,
            labels=(str(paths[0]), str(paths[-1])),
        )
    except (CKAError, CheckpointError, SettingsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    result.save(arguments.output)
    for name, value in result.summary().items():
        print(f"{name:<30} {value:.4f}")
    print(f"picture: {arguments.output.with_suffix('.png')}, numbers: {arguments.output.with_suffix('.npz')}")
    return 0


def cross_validation(experiment: Path) -> int:
    """Write and print the means of all cross-validations in an experiment's folder; 1 if folds are missing."""
    from {{ cookiecutter.package_name }}.runs.settings import SettingsError
    from {{ cookiecutter.package_name }}.training.crossvalidation import collect, write

    try:
        found = collect(experiment)
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    write(experiment, found)
    print("\n".join(each.line() for each in found))
    if missing := sum(each.folds - len(each.runs) for each in found):
        print(f"error: {missing} folds are not done, and what lacks them is not in the file", file=sys.stderr)
    return int(missing > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
