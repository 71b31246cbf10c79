"""What CKACallback adds to a training of the default network on the digits: CPU seconds for 20 epochs.

    python benchmarks/cka_callback.py [--json FILE]

The package's ConvNet, Classifier and Digits (1,077 images for training, 360 for validation) with a bare Trainer on one
thread. The settings take turns; the least of several repeats counts.
"""

import argparse
import logging
import platform
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path

import torch
from figures import write_figures
from lightning.pytorch import Trainer
from template_path import use_template

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


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5, help="timed repeats of each setting (default: 5)")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    use_template()
    seconds({})  # imports
    results = {name: [] for name in SETTINGS}
    for _ in range(arguments.repeats):
        for name, settings in SETTINGS.items():
            results[name].append(seconds(settings))
    rows, without = [], min(results["without"])[0]
    for name, measured in results.items():
        least, maps = min(measured)
        row = {"CKA": name, "CPU s": round(least, 2), "maps": maps}
        row["ms for a map"] = round(1e3 * (least - without) / maps, 1) if maps else ""
        row["added"] = f"{least / without - 1:.1%}" if maps else ""
        rows.append(row)
        print(" ".join(f"{key} {value}" for key, value in row.items()))
    if arguments.json:
        machine = f"one thread, {platform.system()}, torch {torch.__version__}"
        command = f"python benchmarks/cka_callback.py --repeats {arguments.repeats}"
        write_figures(arguments.json, machine, command, rows)


if __name__ == "__main__":
    main()
