"""What maps of CKA add to a training of the default network on the digits, in CPU seconds on one thread.

    python benchmarks/cka_callback.py [--json FILE]

First the default run of a generated project, ten epochs, recorded for W&B in files: what a user pays. Then CKACallback
alone: the package's ConvNet, Classifier and Digits (1,077 images for training, 360 for validation), 20 epochs with a
bare Trainer. The settings take turns. The least of several repeats counts, since other programs can only add to it.
"""

import argparse
import logging
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path

import torch
from figures import this_machine, write_figures
from lightning.pytorch import Trainer
from template_path import use_template

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from clean_copy import clean_copy  # noqa: E402

RUNS = {
    "without": ["--cka=null"],
    "a map at each epoch, the default": [],
    "a map every 5 epochs": ["--cka.every_n_epochs=5"],
}
EPOCHS = 20
SETTINGS = {
    "without": None,
    "init, every epoch": {},
    "init, every 5 epochs": {"every_n_epochs": 5},
    "init, every epoch, all modules": {"layers": ["**"]},
    "self, every epoch": {"reference": "self"},
}


def seconds(settings):
    from data import Digits
    from lightning_hpc.cka import CKACallback
    from model import Classifier
    from networks import ConvNet

    torch.manual_seed(0)
    model = Classifier(ConvNet(10, (1, 8, 8)), 10, partial(torch.optim.AdamW, lr=3e-3))
    data = Digits()
    data.setup("fit")
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            max_epochs=EPOCHS, default_root_dir=folder, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
            callbacks=[] if settings is None else [CKACallback(**settings)],
        )  # fmt: skip
        start = time.process_time()
        trainer.fit(model, datamodule=data)
        maps = len(list(Path(folder).glob("cka/*.png")))
        return time.process_time() - start, maps


def whole_run(project: Path, arguments: list[str]) -> float:
    """CPU seconds of a default run, and of what it starts."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", "CUDA_VISIBLE_DEVICES": ""}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as runs:
        command = [sys.executable, project / "Train.py", "fit", f"--runs_dir={runs}", *arguments]
        subprocess.run(command, cwd=project, env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def measure_runs(repeats: int) -> list[dict[str, object]]:
    """Whole runs of a generated project, in turns."""
    from cookiecutter.main import cookiecutter

    with tempfile.TemporaryDirectory() as scratch:
        template = clean_copy(Path(scratch) / "template")
        project = Path(cookiecutter(str(template), no_input=True, output_dir=scratch))
        whole_run(project, [])  # compiles what Python imports
        results = {name: [] for name in RUNS}
        for _ in range(repeats):
            for name, arguments in RUNS.items():
                results[name].append(whole_run(project, arguments))

    rows, without = [], results["without"]
    for name, measured in results.items():
        row = {"default run": name, "CPU s": round(min(measured), 2)}
        pairs = [one / other - 1 for one, other in zip(measured, without, strict=True)]
        row["added"] = f"{min(measured) / min(without) - 1:.1%}" if name != "without" else ""
        row["added, median of the turns"] = f"{statistics.median(pairs):.1%}" if name != "without" else ""
        rows.append(row)
    return rows


def measure_callback(repeats: int) -> list[dict[str, object]]:
    """The callback in a bare Trainer, in turns."""
    seconds({})  # imports
    results = {name: [] for name in SETTINGS}
    for _ in range(repeats):
        for name, settings in SETTINGS.items():
            results[name].append(seconds(settings))

    rows, without = [], min(results["without"])[0]
    for name, measured in results.items():
        least, maps = min(measured)
        row = {"CKA": name, "CPU s": round(least, 2), "maps": maps}
        row["ms for a map"] = round(1e3 * (least - without) / maps, 1) if maps else ""
        row["added"] = f"{least / without - 1:.1%}" if maps else ""
        rows.append(row)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5, help="timed repeats of each setting (default: 5)")
    parser.add_argument(
        "--json", type=Path, help="write the figures to this file, those of whole runs to cka_run.json beside it"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    use_template()

    machine = this_machine("one thread", f"torch {torch.__version__}")
    command = f"python benchmarks/cka_callback.py --repeats {arguments.repeats}"
    for name, measure in (("cka_run.json", measure_runs), (None, measure_callback)):
        rows = measure(arguments.repeats)
        for row in rows:
            print(" ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        if arguments.json:
            file = arguments.json.with_name(name) if name else arguments.json
            write_figures(file, machine, command, rows)


if __name__ == "__main__":
    main()
