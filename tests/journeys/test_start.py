"""What a run imports until its first step: nothing that it does not use, as a thousand runs pay for it each time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Package → who imports it; what is not among them, the default run must not import.
NEEDED = {
    "torch": "the run",
    **dict.fromkeys(("numpy", "sympy", "mpmath", "torchgen", "opentelemetry", "dill"), "torch"),
    "lightning": "the run",
    "torchmetrics": "Lightning",
    **dict.fromkeys(("lightning_utilities", "packaging", "tqdm", "fsspec", "rich", "yaml"), "Lightning"),
    **dict.fromkeys(("attr", "attrs", "PIL", "regex", "scipy"), "torchmetrics, as far as they are installed"),
    **dict.fromkeys(("jsonargparse", "docstring_parser", "typeshed_client", "ruamel"), "the settings"),
    "typing_extensions": "nearly all of them",
    "wandb": "the default tracker",
    **dict.fromkeys(("pydantic", "pydantic_core", "annotated_types", "typing_inspection", "xxhash"), "W&B"),
    **dict.fromkeys(("google", "click", "platformdirs"), "W&B"),
    "lightning_hpc": "the project",
    "my_research_project": "the project",
}
UNUSED = ("scipy.signal", "matplotlib", "transformers", "sklearn", "pandas", "wandb.apis.public", "wandb.sdk.launch")

OTHER_ROOMS = {"slurm", "arrays", "clusters", "experiments", "scheduler", "packing", "hosts", "sweeps"}
OTHER_ROOMS |= {"report", "results", "reproduction", "export"}

FIRST_STEP = """
import os, sys
from lightning.pytorch import Callback


class FirstStep(Callback):
    def on_train_batch_end(self, *arguments):
        names = "\\n".join(name for name, module in sys.modules.items() if getattr(module, "__file__", None))
        print("MODULES\\n" + names, flush=True)
        os._exit(0)
"""


AT_THE_END = """
import sys
from lightning.pytorch import Callback


class AtTheEnd(Callback):
    def teardown(self, trainer, module, stage):
        print("MODULES\\n" + "\\n".join(sys.modules) + "\\n", flush=True)
"""


@pytest.fixture(scope="module")
def imported(project: Path, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The modules of the default run, which records into files for W&B, after its first step."""
    folder = tmp_path_factory.mktemp("first_step")
    (folder / "first_step.py").write_text(FIRST_STEP)
    command = [sys.executable, "Train.py", "fit", f"--runs_dir={folder}", "--trainer.callbacks+=first_step.FirstStep"]
    environment = {**os.environ, "PYTHONPATH": str(folder), "WANDB_MODE": "offline"}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert "MODULES" in done.stdout, done.stderr
    return set(done.stdout.partition("MODULES")[2].split())


def test_the_default_run_imports_what_it_uses(imported):
    ours = {name.partition(".")[0] for name in imported} - set(sys.stdlib_module_names)
    hidden = {name for name in ours if name.startswith("_")}  # parts of Cython's and of Python's own

    assert ours - hidden - {"first_step"} <= set(NEEDED)
    assert not imported & set(UNUSED)


def test_the_default_run_imports_no_room_that_only_plans_or_reports(imported):
    rooms = {name.split(".")[1] for name in imported if name.startswith("lightning_hpc.")}

    assert "survive" in rooms
    assert not rooms & OTHER_ROOMS


def test_a_whole_run_draws_and_logs_its_map_without_matplotlib_and_pandas(project, tmp_path):
    (tmp_path / "at_the_end.py").write_text(AT_THE_END)
    command = [sys.executable, "Train.py", "fit", f"--runs_dir={tmp_path}", "--trainer.max_epochs=1"]
    command.append("--trainer.callbacks+=at_the_end.AtTheEnd")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "WANDB_MODE": "offline"}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert not set(done.stdout.partition("MODULES")[2].split()) & set(UNUSED)
    assert list(tmp_path.glob("*/*/cka/epoch-001.png"))
    assert list(tmp_path.glob("*/*/wandb/offline-run-*/files/media/images/cka/init/map*.png"))


# In a process of its own each, as modules stay imported.
IN_A_PROCESS = """
import sys
from lightning_hpc.stand_ins import import_torchmetrics
import_torchmetrics()
import torch, torchmetrics
accuracy = torchmetrics.classification.MulticlassAccuracy(3)
accuracy.update(torch.tensor([0, 1]), torch.tensor([0, 2]))
assert "matplotlib" not in sys.modules
"""


@pytest.mark.parametrize(
    "use",
    [
        "figure, axes = accuracy.plot(); import matplotlib; assert isinstance(axes, matplotlib.axes.Axes)",
        "from matplotlib import pyplot; axes = pyplot.subplots()[1]; assert accuracy.plot(ax=axes)[1] is axes",
        "import matplotlib.pyplot; from torchmetrics.utilities.plot import _AX_TYPE;"
        "assert isinstance(matplotlib.pyplot.gca(), _AX_TYPE) and not isinstance(3, _AX_TYPE)",
        "import scipy.signal; assert scipy.signal.convolve([1, 2], [1]).tolist() == [1, 2]",
        "from torchmetrics.functional.text import bert; import transformers;"
        "assert bert.AutoModel.from_pretrained == transformers.AutoModel.from_pretrained",
        "from lightning_hpc.stand_ins import without_pandas\n"
        "with without_pandas():\n"
        "    import pandas as asked\n"
        "    assert not isinstance(3, asked.DataFrame) and 'pandas.core' not in sys.modules\n"
        "    assert asked.Series([1]).sum() == 1\n"  # as another thread may at this moment
        "import pandas; assert isinstance(pandas.DataFrame(), asked.DataFrame)",
    ],
    ids=["plot", "plot into axes", "type of axes", "scipy.signal", "transformers", "pandas"],
)
def test_what_was_left_out_is_there_when_it_is_used(use):
    if "transformers" in use:
        pytest.importorskip("transformers")
    environment = {**os.environ, "MPLBACKEND": "agg"}
    done = subprocess.run([sys.executable, "-c", IN_A_PROCESS + use], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
