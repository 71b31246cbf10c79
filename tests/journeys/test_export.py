"""`Train.py export`: the files it writes compute what the run's model computes, without this project's code."""

import importlib.util
import subprocess
import sys

import pytest
import torch

MODELS = """
import torch
from torch import nn
from my_research_project.model import Classifier


class OfTwo(Classifier):
    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        self.example_input_array = (torch.rand(3, 1, 8, 8), torch.rand(3, 1, 8, 8))

    def forward(self, inputs, others=None):
        logits = super().forward(inputs)
        return {"logits": logits, "sum": logits.sum(1)} if others is not None else logits


class Mean(Classifier):
    def forward(self, inputs):
        logits = super().forward(inputs)
        return logits - logits.mean() * (len(inputs) if len(inputs) > 3 else 1)


class Half(nn.Module):
    def __init__(self, classes: int):
        super().__init__()
        self.linear = nn.Linear(64, classes)
        self.same = self.linear  # weights that share their memory

    def forward(self, images):
        return self.same(images.flatten(1).double().float())
"""


@pytest.fixture
def export(project, capsys):
    """Runs `Train.py export …` in this process; returns the exit code, and what was printed."""
    from lightning_hpc.entrance import train as main

    def run(*arguments) -> tuple[int, str]:
        capsys.readouterr()
        code = main(["export", *map(str, arguments)], root=project)
        return code, "".join(capsys.readouterr())

    return run


@pytest.fixture
def models(tmp_path):
    (tmp_path / "exported_models.py").write_text(MODELS)
    yield
    sys.modules.pop("exported_models", None)


def expected(run, project) -> tuple[torch.Tensor, torch.Tensor]:
    """Some inputs, and what the run's model makes of them."""
    from lightning_hpc import load

    loaded = load(run.folder, root=project)
    inputs = torch.stack([loaded.data.val_set[index][0] for index in range(7)])
    with torch.no_grad():
        return inputs, loaded.model(inputs)


def test_each_format_has_what_the_run_has(train, project, export):
    run = train("fit", "--trainer.max_epochs=2")
    inputs, logits = expected(run, project)
    folder = run.folder / "export"

    code, said = export(run.folder, "--format=torchscript")
    assert code == 0, said
    assert "input float32 (N, 1, 8, 8)" in said and "output float32 (N, 10)" in said
    assert "torch.jit gives what the model gives" in said
    torch.testing.assert_close(torch.jit.load(folder / "best.torchscript.pt")(inputs), logits)

    # Weights: they fit the model, and the file that a person named is written.
    from safetensors.torch import load_file

    checkpoint = run.checkpoint("last")["state_dict"]
    code, said = export(run.folder, "--format=safetensors", "--checkpoint=last", "-o", "weights/mine.safetensors")
    assert code == 0 and f"{len(checkpoint)} tensors" in said, said
    weights = load_file("weights/mine.safetensors")
    assert weights.keys() == checkpoint.keys()
    assert all(torch.equal(weights[name], checkpoint[name]) for name in weights)
    code, said = export(run.folder / "checkpoints" / "best.ckpt", "--format=state_dict")
    assert code == 0 and str(folder / "best.state_dict.pt") in said
    assert "(step " in said and "load_state_dict" in said
    best = torch.load(folder / "best.state_dict.pt", weights_only=True)
    assert all(torch.equal(best[name], value) for name, value in run.checkpoint("best")["state_dict"].items())

    # A run of its own can start from the weights.
    again = train("fit", "--name=warm", f"--init_from={folder / 'best.state_dict.pt'}", "--trainer.max_epochs=1")
    assert again.code == 0

    # Nothing is overwritten, and nothing is left of what was refused.
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    code, said = export(run.folder, "--format=torchscript")
    assert code == 2 and "best.torchscript.pt is there already" in said
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == before


def test_onnx_takes_batches_of_any_size(train, project, export):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    run = train("fit")
    inputs, logits = expected(run, project)
    code, said = export(run.folder)
    assert code == 0, said
    assert f"onnxruntime {onnxruntime.__version__} gives what the model gives" in said
    assert "InferenceSession" in said

    session = onnxruntime.InferenceSession(run.folder / "export" / "best.onnx")
    assert session.get_inputs()[0].shape == ["batch", 1, 8, 8]
    for count in (1, 7):
        (computed,) = session.run(None, {"input": inputs[:count].numpy()})
        torch.testing.assert_close(torch.from_numpy(computed), logits[:count], atol=1e-5, rtol=1e-4)
    assert [file.name for file in (run.folder / "export").iterdir()] == ["best.onnx"]


def test_several_inputs_and_named_outputs(train, models, export):
    onnxruntime = pytest.importorskip("onnxruntime")
    run = train("fit", "--model=exported_models.OfTwo")
    code, said = export(run.folder)
    assert code == 0, said
    assert "input_0 float32 (N, 1, 8, 8), input_1 float32 (N, 1, 8, 8)" in said
    assert "logits float32 (N, 10), sum float32 (N)" in said
    session = onnxruntime.InferenceSession(run.folder / "export" / "best.onnx")
    assert [output.name for output in session.get_outputs()] == ["logits", "sum"]


def test_what_differs_from_the_model_is_not_kept(train, models, export):
    """A model that looks at the size of its batch: TorchScript would keep the answer for the size it was shown."""
    run = train("fit", "--model=exported_models.Mean")
    code, said = export(run.folder, "--format=torchscript")
    assert code == 2 and "differs from the model by" in said
    assert not list((run.folder / "export").iterdir())
    code, said = export(run.folder)
    assert code == 2 and said.startswith("error: --format onnx: this model can't be exported so: ")
    assert len(said.splitlines()) == 1 and not list((run.folder / "export").iterdir())


def test_weights_that_share_memory_and_a_run_without_a_best_checkpoint(train, models, export, project):
    from lightning_hpc import load

    run = train("fit", "--model.network=exported_models.Half", "--data.mode=final")
    assert not (run.folder / "checkpoints" / "best.ckpt").exists()
    code, said = export(run.folder, "--format=safetensors")
    assert code == 0 and (run.folder / "export" / "last.safetensors").is_file(), said
    code, said = export(run.folder, "--format=torchscript")
    assert code == 0 and "torch.jit gives" in said, said  # with inputs from the training data
    assert load(run.folder, root=project).checkpoint.path.name == "last.ckpt"


def test_wrong_wishes_are_one_line(train, export, tmp_path, monkeypatch):
    code, said = export("runs/nowhere")
    assert (code, said) == (2, "error: runs/nowhere is neither a run's folder nor a checkpoint\n")
    run = train("fit")
    for arguments in ([], [run.folder, "--run", run.folder]):
        assert export(*arguments) == (2, "error: export needs one run: python Train.py export RUN\n")
    code, said = export("--run", run.folder, "--checkpoint=wrost", "--format=state_dict")
    assert code == 2 and "no checkpoint wrost" in said and "best, last" in said
    code, said = export(run.folder / "checkpoints/best.ckpt", "--checkpoint=last", "--format=state_dict")
    assert code == 2 and "is a checkpoint already" in said

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if "onnx" in name else find(name))
    code, said = export(run.folder)
    assert (code, said) == (2, "error: --format onnx needs onnx and onnxscript: pip install onnx onnxscript\n")
    assert not (run.folder / "export").exists()


def test_help_and_a_wrong_path_without_torch_having_been_loaded(project):
    def typed(*arguments):
        command = [sys.executable, "Train.py", "export", *arguments]
        return subprocess.run(command, cwd=project, capture_output=True, text=True)

    told = typed("--help")
    assert told.returncode == 0 and "safetensors" in told.stdout
    told = typed("runs/nowhere", "--format=state_dict")
    assert told.returncode == 2 and told.stderr == "error: runs/nowhere is neither a run's folder nor a checkpoint\n"
