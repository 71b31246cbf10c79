"""Texts of different lengths: words as numbers, filled up to the longest text of their batch.

    python Train.py fit --data Reviews --model.network Reader
    python Train.py test --data Reviews --model.network Reader

To change: `load`, to read your own texts and their classes; `as_numbers`, if you have a tokenizer, such as one of the
package transformers. The model is the project's own Classifier.
"""

import itertools
import zlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence
from torch.utils.data import DataLoader, Dataset

from lightning_hpc.data import DataModule

WORDS = 2000  # numbers that a word can have
PADDING = 0  # is no word


def as_numbers(text: str) -> Tensor:
    """The number of each word of a text: computed from the word, so that no vocabulary has to be kept."""
    return torch.tensor([1 + zlib.crc32(word.encode()) % (WORDS - 1) for word in text.lower().split()])


class Texts(Dataset):
    """Texts as (numbers of its words, target).

    Args:
        texts: the texts.
        targets: the number of each one's class; with this name, the split spreads the classes evenly.
    """

    def __init__(self, texts: Sequence[str], targets: Sequence[int]) -> None:
        self.texts, self.targets = texts, targets

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return as_numbers(self.texts[index]), self.targets[index]


def pad(samples: Sequence[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    """A batch: words (N, length of the longest text), and targets (N)."""
    texts, targets = zip(*samples, strict=True)
    return pad_sequence(texts, batch_first=True, padding_value=PADDING), torch.tensor(targets)


class Reviews(DataModule):
    """1,152 sentences that praise (1) or don't (0), in which the word `not` matters."""

    classes = 2

    def load(self) -> dict[str, Dataset]:
        subjects = ["the film", "this book", "her last play", "what they sang"]
        verbs = ["was", "is really", "seems to be"]
        good = {"good": 1, "lovely": 1, "clever": 1, "moving": 1, "dull": 0, "poor": 0, "silly": 0, "dreadful": 0}
        endings = ["", "at all", "from its beginning to its very end", "they said", "I think", "if you ask me"]
        texts, targets = [], []
        for subject, verb, word, ending in itertools.product(subjects, verbs, good, endings):
            texts += [f"{subject} {verb} {word} {ending}", f"{subject} {verb} not {word} {ending}"]
            targets += [good[word], 1 - good[word]]
        return {"train": Texts(texts, targets)}

    def loader(self, dataset: Dataset, shuffle: bool = False) -> DataLoader:
        loader = super().loader(dataset, shuffle)
        loader.collate_fn = pad
        return loader


class Reader(nn.Module):
    """Reads a text word by word and says its class at the end.

    Args:
        classes: number of classes.
        width: numbers that a word, and what has been read so far, become.

    Shape:
        (N, length) → (N, classes)
    """

    def __init__(self, classes: int, width: int = 32) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, width, padding_idx=PADDING)
        self.read = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, classes)

    def forward(self, texts: Tensor) -> Tensor:
        # Packed, so that reading ends with each text's own last word and not with what fills it up.
        lengths = (texts != PADDING).sum(dim=1).cpu()
        words = pack_padded_sequence(self.words(texts), lengths, batch_first=True, enforce_sorted=False)
        _, last = self.read(words)
        return self.head(last[-1])
