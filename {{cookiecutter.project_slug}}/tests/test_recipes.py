"""Working examples to copy: another network, another way of training, other data. README.md points here."""

from pathlib import Path

import torch
import yaml

from {{ cookiecutter.package_name }}.model import Classifier


class Finetuner(Classifier):
    """Inheritance: all of Classifier, but the last layer learns ten times as fast as the rest."""

    def configure_optimizers(self):
        head = list(self.network.head.parameters())
        body = [p for name, p in self.network.named_parameters() if not name.startswith("head.")]
        optimizer = self.optimizer([dict(params=body), dict(params=head, lr=10 * 0.003)])
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
        return dict(optimizer=optimizer, lr_scheduler=schedule)


class MixupStep:
    """Composition: only a training step, to be combined with any LightningModule that has the other parts.

    Mixup (Zhang et al. 2018, arXiv:1710.09412) trains on weighted means of two samples and of their targets.
    """

    def training_step(self, batch, batch_idx):
        inputs, targets = batch
        share = torch.distributions.Beta(0.2, 0.2).sample()
        partner = torch.randperm(len(inputs), device=inputs.device)
        logits = self(share * inputs + (1 - share) * inputs[partner])
        losses = [torch.nn.functional.cross_entropy(logits, t) for t in (targets, targets[partner])]
        loss = share * losses[0] + (1 - share) * losses[1]
        self.log("train/loss", loss, prog_bar=True)
        return loss


class MixupFinetuner(MixupStep, Finetuner):
    """The training step of one, the optimizer of the other, everything else of Classifier."""


def test_a_child_changes_optimizer_and_schedule(train):
    run = train("fit", "--model", f"{__name__}.Finetuner")
    checkpoint = torch.load(run.folder / "checkpoints" / "last.ckpt", weights_only=True)
    body, head = checkpoint["optimizer_states"][0]["param_groups"]
    assert head["lr"] == 10 * body["lr"] == 10 * 0.003 / 4  # halved after each of two epochs


def test_a_child_borrows_parts_of_two(train):
    run = train("fit", "--model", f"{__name__}.MixupFinetuner")
    assert run.status["state"] == "done"
    assert "train/acc" not in run.status["metrics"]  # the borrowed step does not log it
    checkpoint = torch.load(run.folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert len(checkpoint["optimizer_states"][0]["param_groups"]) == 2


def test_a_network_from_a_file_of_your_own(train, tmp_path: Path):
    (tmp_path / "written_by_a_test.py").write_text(
        "from torch import nn\n"
        "class Linear(nn.Sequential):\n"
        "    def __init__(self, num_classes: int, pixels: int = 64):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(pixels, num_classes))\n"
    )
    run = train("fit", "--model.network", "written_by_a_test.Linear")
    config = yaml.safe_load((run.folder / "config.yaml").read_text())
    assert config["model"]["init_args"]["network"]["init_args"] == dict(num_classes=10, pixels=64)


def test_a_function_that_makes_a_network(train, tmp_path: Path):
    """As torchvision.models.resnet18 or timm.create_model are."""
    (tmp_path / "written_by_a_test_2.py").write_text(
        "from torch import nn\n"
        "def perceptron(num_classes: int = 1000, hidden: int = 16) -> nn.Module:\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, num_classes))\n"
    )
    run = train("fit", "--model.network", "written_by_a_test_2.perceptron", "--model.network.hidden", "8")
    weights = torch.load(run.folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert weights["network.3.weight"].shape == (10, 8)


def test_other_data_changes_the_network(train, tmp_path: Path):
    (tmp_path / "written_by_a_test_3.py").write_text(
        "import torch\n"
        "from lightning.pytorch import LightningDataModule\n"
        "from torch.utils.data import DataLoader, TensorDataset\n"
        "class Noise(LightningDataModule):\n"
        "    classes, input_shape = 3, (2, 8, 8)\n"
        "    def __init__(self, batch_size: int = 8):\n"
        "        super().__init__()\n"
        "        self.data = TensorDataset(torch.randn(32, 2, 8, 8), torch.randint(3, (32,)))\n"
        "        self.batch_size = batch_size\n"
        "    def train_dataloader(self): return DataLoader(self.data, batch_size=self.batch_size, shuffle=True)\n"
        "    def val_dataloader(self): return DataLoader(self.data, batch_size=self.batch_size)\n"
    )
    run = train("fit", "--data", "written_by_a_test_3.Noise")
    weights = torch.load(run.folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert weights["network.block1.0.weight"].shape[1] == 2
    assert weights["network.head.2.weight"].shape[0] == 3
