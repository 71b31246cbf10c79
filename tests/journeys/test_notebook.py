"""The project's notebook: executed as Jupyter does, on real runs, and the same in both of its files.

After a change of notebooks/results.py, `PYTHONPATH=tests python tests/journeys/test_notebook.py` writes the other one.
"""

import os
from pathlib import Path

import jupytext
import nbformat
import pytest
from disturbing import EVERY_STEP, disturbed
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[2] / "{{cookiecutter.project_slug}}" / "notebooks"
TIMEOUT = 300  # seconds for a cell; the first one imports torch


def notebook():
    """notebooks/results.py as the notebook that it is, with cells that are always called the same."""
    made = jupytext.read(NOTEBOOKS / "results.py")
    del made.metadata["jupytext"]["text_representation"]  # the version of jupytext that happens to be here
    for number, cell in enumerate(made.cells):
        cell.id = f"cell-{number}"
    return made


def outputs(cell):
    """What a cell has shown: its texts, and the kinds of its pictures."""
    shown = []
    for output in cell.outputs:
        shown.append(output.get("text") or output["data"]["text/plain"])
        shown += [kind for kind in output.get("data", {}) if kind.startswith("image/")]
    return " ".join(shown)


def test_both_files_are_the_same_notebook_without_results():
    committed = nbformat.read(NOTEBOOKS / "results.ipynb", as_version=4)
    nbformat.validate(committed)
    assert committed == notebook()


@pytest.fixture
def runs(train):
    """Four runs of two learning rates, and one that has failed, in the working folder."""
    made = []
    for rate in ("0.003", "0.03"):
        made += [train("fit", f"--model.optimizer.lr={rate}", f"--trial={trial}") for trial in range(2)]
    assert [run.code for run in made] == [0] * 4
    assert train("fit", disturbed("crash"), *EVERY_STEP).code == 1
    return made


def test_it_runs_from_top_to_bottom_on_real_runs(runs, project):
    committed = nbformat.read(NOTEBOOKS / "results.ipynb", as_version=4)
    client = NotebookClient(committed, timeout=TIMEOUT, resources=dict(metadata=dict(path=str(Path.cwd()))))
    executed = client.execute(env=os.environ | dict(PYTHONPATH=str(project)))
    shown = {cell.source: outputs(cell) for cell in executed.cells if cell.cell_type == "code"}

    def shown_by(part):
        """What the cell shows whose code has this in it."""
        (text,) = [text for source, text in shown.items() if part in source]
        return text

    assert shown_by("print(len(results)") == "5 runs\n" and "4 of 5 runs" in shown_by("len(done)")
    assert "RuntimeError: the run has a fault" in shown_by("value_counts")
    assert shown_by("smaller_is_better =") == "val/loss should be small\n"

    losses = {run.folder.name: run.column("val/loss")[-1] for run in runs}
    best, worst = min(losses, key=losses.get), max(losses, key=losses.get)
    ranking = shown_by(".head(10)")
    assert all(f"{loss:.6f}" in ranking for loss in losses.values())
    different = shown_by(".compare(settings")
    assert "model.optimizer.lr 0.003 0.03" in " ".join(different.split()) and "cka" not in different
    assert best.split("-")[1:-1] != worst.split("-")[1:-1]

    assert f"{losses[best]:.6f}" in shown_by("load(best)")
    assert "image/png" in shown_by("axes.plot") and "image/png" in shown_by("cka.figure")
    assert "4 runs, 1 settings that differ" in shown_by("searched =")
    importance = shown_by("corrwith").splitlines()[-1].split()
    assert importance[:2] == ["model.optimizer.lr", "0.894427"] and 0 < float(importance[2]) < 2


if __name__ == "__main__":
    nbformat.write(notebook(), NOTEBOOKS / "results.ipynb")
