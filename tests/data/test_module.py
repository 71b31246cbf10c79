"""DataModules: a new data set in a few lines, with splits that a run keeps, and Fashion-MNIST, downloaded."""

import gzip
import hashlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from misbehaving import Misbehaving
from torch.utils.data import Dataset, Subset, TensorDataset

from data import Digits, FashionMNIST
from lightning_hpc.data import DataModule
from lightning_hpc.data.subset import labels_of
from lightning_hpc.settings.errors import SettingsError

torch.set_num_threads(1)


def numbers(first, last, classes=4):
    """Samples that are their own index in what is given, and a label."""
    index = torch.arange(first, last)
    return TensorDataset(index.float().unsqueeze(1), index % classes)


class Doubled:
    def __call__(self, sample):
        return 2 * sample[0], sample[1]


class Numbers(DataModule):
    classes, input_shape = 4, (1,)

    def load(self):
        return {"train": numbers(0, 100), "test": numbers(100, 120), "distant": numbers(1000, 1010)}

    def transform(self, training):
        return Doubled() if training else None


def seen(loader):
    return sorted(int(value) for inputs, _ in loader for value in inputs.flatten())


def ready(data):
    data.setup("fit")
    return data


def test_only_training_samples_are_augmented_in_any_mode():
    for mode in ("normal", "cross-validation", "final"):
        data = ready(Numbers(batch_size=7, mode=mode))
        assert seen(data.train_dataloader()) == [2 * index for index in data.split.train]
        assert data.val_dataloader() == [] if mode == "final" else seen(data.val_dataloader()) == data.split.val
        assert seen(data.test_dataloader()) == data.split.test == list(range(100, 120))


def test_each_sample_validates_in_one_fold():
    folds = [ready(Numbers(mode="cross-validation", folds=4, fold=fold)) for fold in range(4)]
    assert sorted(sum((seen(data.val_dataloader()) for data in folds), [])) == list(range(100))
    for data in folds:
        assert not set(data.split.train) & set(data.split.val)
        counts = torch.cat([labels for _, labels in data.val_dataloader()]).bincount(minlength=4)
        assert counts.max() - counts.min() <= 1


def test_another_set_can_be_tested():
    data = ready(Numbers(test_on="distant"))
    assert seen(data.test_dataloader()) == seen(data.predict_dataloader()) == list(range(1000, 1010))
    with pytest.raises(SettingsError, match="there are test, val, train, distant.*did you mean distant"):
        ready(Numbers(test_on="distnt"))


def test_a_data_set_without_training_samples_is_an_error():
    class Misspelt(Numbers):
        def load(self):
            return {"training": numbers(0, 100)}

    with pytest.raises(SettingsError, match="Misspelt.load must return `train`, not only training"):
        ready(Misspelt())


class Images(Dataset):
    """As torchvision's data sets are: samples by index, and `targets`."""

    def __init__(self, first, last):
        self.first, self.targets = first, [index % 2 for index in range(first, last)]

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        return torch.tensor([float(self.first + index)]), self.targets[index]


class Patients(DataModule):
    """Given with a validation set, and with patients, three images of each."""

    def load(self):
        return {"train": Images(0, 60), "validation": Images(60, 75), "test": Images(75, 90)}

    def groups(self):
        return [index // 3 for index in range(90)]


def test_any_map_style_data_set_with_groups():
    normal = ready(Patients())
    assert seen(normal.val_dataloader()) == list(range(60, 75))
    assert seen(ready(Patients(mode="final")).train_dataloader()) == list(range(75))
    for fold in range(5):
        data = ready(Patients(mode="cross-validation", fold=fold))
        assert len(data.split.val) == 15 and seen(data.val_dataloader()) == data.split.val
        assert not {index // 3 for index in data.split.val} & {index // 3 for index in data.split.train}


def test_stratification_can_be_switched_off():
    def counts(**settings):
        return ready(Digits(mode="cross-validation", **settings)).val_set.tensors[1].bincount().double().std()

    assert counts() < 2 < counts(stratify=False)


class Anything(DataModule):
    """120 samples, of which 40 are of the rarer class, in a data set that has these targets."""

    rare = [index % 3 == 0 for index in range(120)]

    def __init__(self, targets, **settings):
        super().__init__(**settings)
        self.targets = targets

    def load(self):
        data = Images(0, 120)
        data.targets = self.targets
        return {"train": Loaded(data)}


class Loaded(Dataset):
    """A data set with targets of any kind; of the inputs alone."""

    def __init__(self, data):
        self.targets = data.targets

    def __len__(self):
        return 120

    def __getitem__(self, index):
        return torch.tensor([float(index)])


NO_LABELS = {
    "none at all": None,
    "nothing but None": [None] * 120,
    "ragged": [[1] * (index % 3) for index in range(120)],
    "dicts": [{"boxes": []}] * 120,
    "a dict": {"0": 1},
    "several a sample": torch.zeros(120, 2),
    "a number": 3,
    "an array without an axis": np.array(3),
    "a text": "x" * 120,
    "of another length": [1, 2, 3],
}


@pytest.mark.parametrize("targets", NO_LABELS.values(), ids=NO_LABELS)
def test_without_labels_a_split_says_that_it_does_not_look_at_them(targets, caplog):
    caplog.set_level("INFO")
    drawn = ready(Anything(targets)).split
    assert drawn == ready(Anything(targets, stratify=False)).split
    assert caplog.text.count("the split does not look at labels: the data set of Anything") == 1
    with pytest.raises(SettingsError, match="data.stratify: .* return them from a method `strata` of Anything"):
        ready(Anything(targets, stratify=True))


RARE = torch.tensor(Anything.rare)
LABELS = {
    "a list": RARE.int().tolist(),
    "half precision": RARE.bfloat16(),
    "with a gradient": RARE.float().requires_grad_(),
    "a column": RARE.float().unsqueeze(1),
    "tensors": list(RARE.int()),
    "numpy": RARE.numpy(),
    "numbers of numpy": list(RARE.numpy()),
    "texts": ["rare" if rare else "common" for rare in Anything.rare],
    "some without": ["rare" if rare else None for rare in Anything.rare],
    "mixed": ["rare" if rare else 7 for rare in Anything.rare],
}


@pytest.mark.parametrize("targets", LABELS.values(), ids=LABELS)
def test_labels_of_any_type_are_spread_evenly(targets):
    drawn = ready(Anything(targets, stratify=True)).split
    assert [sum(Anything.rare[index] for index in indices) for indices in vars(drawn).values()] == [24, 8, 8]


def test_strata_can_be_returned_and_labels_of_a_subset_are_known():
    class Stated(Anything):
        def strata(self):
            return self.stated

    data = Stated(None, stratify=True)
    data.stated = np.array(Anything.rare)
    assert sum(Anything.rare[index] for index in ready(data).split.test) == 8
    data = Stated(None)
    data.stated = [1, 2]
    with pytest.raises(SettingsError, match="Stated.strata must return one number or text for each of 120 samples"):
        ready(data)
    assert labels_of(Subset(Images(0, 9), [3, 4])) == [1, 0]


def test_labels_may_have_the_name_that_svhn_gives_them():
    data = Loaded(SimpleNamespace(targets=None))
    del data.targets
    assert labels_of(data) is None
    data.labels = np.array(Anything.rare)
    assert labels_of(data) == Anything.rare


def test_where_nothing_is_drawn_no_labels_are_asked_for(caplog):
    class Given(Anything):
        def load(self):
            return dict.fromkeys(("train", "validation", "test"), super().load()["train"])

    caplog.set_level("INFO")
    for mode in ("normal", "final"):
        ready(Given(None, stratify=True, mode=mode))
    assert "labels" not in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(folds=1), "data.folds: .* at least 2, got 1"),
        (dict(fold=5), "data.fold: .* 0 to 4, got 5"),
        (dict(val_share=0.6, test_share=0.5), "data.val_share: .* leave nothing to train on"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(SettingsError, match=message):
        Digits(**settings)


# Fashion-MNIST: the same files, only smaller


def idx(array):
    """An array in the format of the MNIST files: http://yann.lecun.com/exdb/mnist"""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    return gzip.compress(header + array.astype(np.uint8).tobytes(), mtime=0)


@pytest.fixture
def small_fashion(monkeypatch):
    """The class with another mirror, which is down at first, and files of 50 and 10 images; the images are returned."""
    draw = np.random.default_rng(0)
    arrays = {}
    with Misbehaving() as server:
        for prefix, count in (("train", 50), ("t10k", 10)):
            arrays[prefix] = draw.integers(0, 256, (count, 28, 28)), np.arange(count) % 10
            for kind, array in zip(("images-idx3", "labels-idx1"), arrays[prefix], strict=True):
                server.files[f"{prefix}-{kind}-ubyte.gz"] = idx(array)
        assert set(server.files) == set(FashionMNIST.files)
        facts = {name: (len(body), hashlib.sha256(body).hexdigest()) for name, body in server.files.items()}
        monkeypatch.setattr(FashionMNIST, "files", facts)
        monkeypatch.setattr(FashionMNIST, "mirrors", (server.url("not-found", ""), server.url("good", "")))
        yield server, arrays


def test_fashion_mnist_is_downloaded_once_and_read(small_fashion, tmp_path):
    server, arrays = small_fashion
    for _ in range(2):
        data = FashionMNIST(batch_size=50, data_dir=str(tmp_path))
        data.prepare_data()
        asked = dict(server.asked)
    data.setup("fit")
    assert dict(server.asked) == asked
    assert [len(each) for each in (data.train_set, data.val_set, data.test_set)] == [40, 10, 10]
    images, labels = next(iter(data.test_dataloader()))
    assert images.shape == (10, *data.input_shape) and images.dtype == torch.float32
    assert np.array_equal((images * 255).round().numpy().reshape(10, 28, 28), arrays["t10k"][0])
    assert labels.tolist() == arrays["t10k"][1].tolist()


def test_the_real_checksums_are_whole():
    assert [size for size, _ in FashionMNIST.files.values()] == [26421880, 29515, 4422102, 5148]
    assert all(len(sha256) == 64 and int(sha256, 16) for _, sha256 in FashionMNIST.files.values())


# In a generated project


def test_a_run_keeps_its_split_and_refuses_other_data(train, tmp_path, monkeypatch):
    run = train("fit")
    with np.load(run.folder / "splits.npz") as kept:
        split = {name: kept[name].tolist() for name in kept}
    data = Digits()
    data.setup("fit")
    assert split == vars(data.split)
    assert [len(split[name]) for name in ("train", "val", "test")] == [1077, 360, 360]
    np.savez(run.folder / "splits.npz", **split | {"val": split["val"][:-1]})
    again = train("fit", "--trainer.max_epochs=2", f"--init_from={run.folder}/checkpoints/last.ckpt")
    assert again.code == 0
    np.savez(again.folder / "splits.npz", **split | {"val": split["val"][:-1]})
    (again.folder / "status.json").write_text(json.dumps(again.status | {"state": "preempted"}))
    again = train("fit", "--trainer.max_epochs=2", f"--init_from={run.folder}/checkpoints/last.ckpt")
    assert again.code == 1 and "data have changed" in again.status["reason"]


def test_final_mode_trains_on_all_that_would_validate(train, capsys):
    early = "--config=experiments/early_stopping.yaml"
    run = train("fit", "--data.mode=final", early)
    assert run.code == 0
    assert not any("val/" in name for row in run.rows for name in row)
    with np.load(run.folder / "splits.npz") as split:
        assert (len(split["train"]), len(split["val"]), len(split["test"])) == (1437, 0, 360)
    assert train("test", "--run", str(run.folder)).code == 0
    assert json.loads((run.folder / "test.json").read_text())["checkpoint"] == "checkpoints/last.ckpt"
    capsys.readouterr()
    assert train("validate", "--run", str(run.folder)).code == 2
    assert capsys.readouterr().err.startswith("error: with data.mode final there is no validation data")


def test_testing_on_another_set_leaves_the_test_alone(train, tmp_path):
    (tmp_path / "other_data.py").write_text(
        "from my_research_project.data import Digits\n"
        "class Shifted(Digits):\n"
        "    def load(self):\n"
        "        given = super().load()\n"
        "        images, targets = given['train'].tensors\n"
        "        return given | {'shifted': type(given['train'])(images.roll(2, -1), targets)}\n"
    )
    run = train("fit", "--data=other_data.Shifted", "--data.stratify=true")
    assert train("test", "--run", str(run.folder)).code == 0
    before = (run.folder / "test.json").read_text()
    assert train("test", "--run", str(run.folder), "--data.test_on=shifted").code == 0
    assert (run.folder / "test.json").read_text() == before
    shifted = json.loads((run.folder / "test-shifted.json").read_text())
    assert shifted["test/acc"] != json.loads(before)["test/acc"]


def test_fetch_knows_when_the_clusters_scratch_is_purged(tmp_path):
    from lightning_hpc.training.commands import purge_days

    assert purge_days(tmp_path) is None
    (tmp_path / "configs" / "clusters").mkdir(parents=True)
    (tmp_path / "configs" / "slurm.yaml").write_text("cluster: ours")
    assert purge_days(tmp_path) is None
    (tmp_path / "configs" / "clusters" / "ours.yaml").write_text("purge_days: 28")
    assert purge_days(tmp_path) == 28


def test_fetch(train, tmp_path, small_fashion, monkeypatch, capsys):
    from my_research_project.data import FashionMNIST as Generated

    server, _ = small_fashion
    monkeypatch.setattr(Generated, "files", FashionMNIST.files)
    monkeypatch.setattr(Generated, "mirrors", FashionMNIST.mirrors)
    assert train("fetch").code == 0
    assert train("fetch", "--data=FashionMNIST", "--data.data_dir=scratch").code == 0
    assert "the data of FashionMNIST are ready" in capsys.readouterr().out
    there = {path.name for path in (tmp_path / "scratch" / "fashion-mnist").iterdir()}
    assert set(server.files) <= there and not (tmp_path / "runs").exists()
    run = train("fit", "--data=FashionMNIST", "--data.data_dir=scratch", "--data.batch_size=8")
    assert run.code == 0 and run.config["model"]["init_args"]["network"]["init_args"]["input_shape"] == [1, 28, 28]
    monkeypatch.setattr(Generated, "mirrors", (server.url("not-found", ""),))
    assert train("fetch", "--data=FashionMNIST", "--data.data_dir=elsewhere").code == 1
    assert "can't be downloaded" in capsys.readouterr().err
    assert train("fetch", "--data.fold=9").code == 2
    assert capsys.readouterr().err.startswith("error: --data.fold: folds are counted from 0 to 4, got 9")
