"""Pictures in folders, or in a table of files and classes. Each is read from its file when it is needed.

    python Train.py fit --data ExamplePictures
    python Train.py fit --data PictureFolders --data.folder birds        data/birds/CLASS/….jpg
    python Train.py fit --data PictureTable --data.table birds.csv       data/birds.csv, with the columns file and label
    python Train.py predict --run RUN --data.predict_dir FOLDER          other pictures; writes predictions-FOLDER.csv

To change: `read`, if a file holds something else than a picture; `augment`, which only pictures that train go through.
If some pictures are for the test alone, let `load` return them as `test`. Reading may take longer than training: use
`--data.num_workers 4`, or as many as you have CPUs.
"""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from lightning_hpc.data import DataModule

ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}


class Pictures(Dataset):
    """Pictures as (image, target), or as (image,) where they have no target.

    Args:
        files: where they are. `predict` writes these names into its table.
        targets: the number of each one's class; with this name, the split spreads the classes evenly. None for none.
        size: height and width that each is scaled to.
    """

    def __init__(self, files: Sequence[Path], targets: Sequence[int] | None, size: int) -> None:
        self.files = [str(file) for file in files]
        self.targets = targets
        self.size = size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor] | tuple[Tensor, int]:
        image = read(self.files[index], self.size)
        if self.targets is None:
            return (image,)
        return image, self.targets[index]


def read(file: str, size: int) -> Tensor:
    """The picture in a file as (3, size, size), with values from 0 to 1."""
    with Image.open(file) as picture:
        pixels = np.array(picture.convert("RGB").resize((size, size)))
    return torch.from_numpy(pixels).permute(2, 0, 1) / 255


def augment(sample: tuple[Tensor, int]) -> tuple[Tensor, int]:
    """Move a picture by up to two pixels in each direction, and make it brighter or darker."""
    image, target = sample
    rows, columns = torch.randint(-2, 3, (2,)).tolist()
    return image.roll((rows, columns), (1, 2)) * torch.empty(1).uniform_(0.8, 1.2), target


def pictures_in(folder: Path) -> list[Path]:
    """All pictures in a folder and below it, in the order of their names."""
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in ENDINGS)


class PictureFolders(DataModule):
    """A folder for each class, called as the class is.

    Args:
        folder: the folder that holds them, counted from data_dir.
        size: height and width that each picture is scaled to.
        settings: those of every DataModule.
    """

    def __init__(self, folder: str, size: int = 64, **settings) -> None:
        super().__init__(**settings)
        self.folder = self.data_dir / folder
        self.size = size
        self.input_shape = (3, size, size)

    @property
    def names(self) -> list[str]:
        """The classes, in the order of their numbers."""
        return sorted(folder.name for folder in self.folder.iterdir() if folder.is_dir())

    @property
    def classes(self) -> int:
        return len(self.names)

    def load(self) -> dict[str, Dataset]:
        numbers = {name: number for number, name in enumerate(self.names)}
        files = pictures_in(self.folder)
        targets = [numbers[file.relative_to(self.folder).parts[0]] for file in files]
        return {"train": Pictures(files, targets, self.size)}

    def load_folder(self, folder: Path) -> Dataset:
        return Pictures(pictures_in(folder), None, self.size)

    def transform(self, training: bool) -> Callable | None:
        return augment if training else None


class PictureTable(PictureFolders):
    """A table of files and classes. Files count from the folder that the table is in.

    Args:
        table: a CSV file with the columns `file` and `label`, counted from data_dir.
        size: height and width that each picture is scaled to.
        settings: those of every DataModule.
    """

    def __init__(self, table: str, size: int = 64, **settings) -> None:
        super().__init__(str(Path(table).parent), size, **settings)
        self.table = self.data_dir / table

    def rows(self) -> list[dict[str, str]]:
        with self.table.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    @property
    def names(self) -> list[str]:
        return sorted({row["label"] for row in self.rows()})

    def load(self) -> dict[str, Dataset]:
        rows, numbers = self.rows(), {name: number for number, name in enumerate(self.names)}
        files = [self.folder / row["file"] for row in rows]
        return {"train": Pictures(files, [numbers[row["label"]] for row in rows], self.size)}


class ExamplePictures(PictureFolders):
    """Six hundred hand-written digits as files, written at the first run: something to try the recipe with."""

    classes = 10  # known before the folders are there

    def __init__(self, folder: str = "example_pictures", size: int = 16, **settings) -> None:
        super().__init__(folder, size, **settings)

    def prepare_data(self) -> None:
        if self.folder.exists():
            return
        from sklearn.datasets import load_digits

        # Written beside its place and then moved there: a folder of this name has all of them.
        part = self.folder.with_suffix(".part")
        digits = load_digits()
        for number in range(600):
            file = part / str(digits.target[number]) / f"{number:04d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((digits.images[number] * 15).astype(np.uint8)).save(file)
        part.rename(self.folder)
