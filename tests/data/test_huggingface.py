"""The recipe of docs/data.md: a data set of Hugging Face `datasets`, here one that is built on the spot."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def recipe(tmp_path):
    """The page's my_reviews.py, beside which its data are."""
    page = (ROOT / "docs" / "data.md").read_text()
    (code,) = re.findall(r"^```python\n(# my_pictures\.py\n.*?)^```", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "my_pictures.py").write_text(code)
    datasets = pytest.importorskip("datasets")
    draw = np.random.default_rng(0)

    def made(count):
        labels = draw.integers(0, 2, count)
        images = draw.integers(0, 256, (count, 8, 8, 1)) * 0.5 + 127 * labels[:, None, None, None]
        return datasets.Dataset.from_dict({"image": images.astype(np.uint8).tolist(), "label": labels.tolist()})

    splits = datasets.DatasetDict({"train": made(100), "test": made(20)})
    splits.save_to_disk(str(tmp_path / "data" / "pictures"))
    return tmp_path


def test_a_data_set_from_hugging_face_trains(train, recipe):
    settings = [f"--data.data_dir={recipe / 'data'}", "--data.batch_size=10", "--trainer.limit_train_batches=1.0"]
    run = train("fit", "--data=my_pictures.Pictures", *settings)
    assert run.code == 0
    with np.load(run.folder / "splits.npz") as split:
        assert [len(split[name]) for name in ("train", "val", "test")] == [80, 20, 20]
    run = train("test", "--run", str(run.folder))
    assert 0 <= json.loads((run.folder / "test.json").read_text())["test/acc"] <= 1


def test_the_extra_brings_no_torch():
    """Otherwise installing it could replace the torch that fits the cluster's drivers."""
    code = "import importlib.metadata as m; print(m.requires('datasets'))"
    needs = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    plain = [line for line in needs.split("', '") if "extra ==" not in line]
    assert plain and not any(re.match(r"\W*(torch|tensorflow|jax)\b", line) for line in plain)
