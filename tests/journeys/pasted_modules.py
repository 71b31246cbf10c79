"""LightningModules as people paste them from tutorials and from the repositories of papers: none was written for this
template, and none may need a change. test_pasted_modules.py trains, kills, resumes and tests each of them.

The networks are as small as can be. What stays is how each class talks to Lightning.
"""
# ruff: noqa: B905, B006 - as people write them

import copy
import math
from collections import deque
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchmetrics
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from my_research_project.data import Digits
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, OneCycleLR, ReduceLROnPlateau
from torch.utils.data import DataLoader, Dataset, TensorDataset


def mlp(*sizes):
    layers = []
    for size_in, size_out in zip(sizes[:-1], sizes[1:]):
        layers += [nn.Linear(size_in, size_out), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), *layers[:-1])


def backbone():
    return nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())  # 36 features


class LitMNIST(LightningModule):
    """The first tutorial: defaults in its signature, none with a type, and metrics called val_loss and val_acc."""

    def __init__(self, data_dir="./data", hidden_size=16, learning_rate=2e-3):
        super().__init__()
        self.data_dir = data_dir
        self.hidden_size = hidden_size
        self.learning_rate = learning_rate
        self.model = nn.Sequential(mlp(64, hidden_size), nn.ReLU(), nn.Dropout(0.1), nn.Linear(hidden_size, 10))
        self.val_accuracy = torchmetrics.Accuracy(task="multiclass", num_classes=10)
        self.test_accuracy = torchmetrics.Accuracy(task="multiclass", num_classes=10)

    def forward(self, x):
        x = self.model(x)
        return F.log_softmax(x, dim=1)

    def training_step(self, batch, batch_idx):
        x, y = batch
        logits = self(x)
        loss = F.nll_loss(logits, y)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        logits = self(x)
        loss = F.nll_loss(logits, y)
        preds = torch.argmax(logits, dim=1)
        self.val_accuracy.update(preds, y)
        self.log("val_loss", loss, prog_bar=True)
        self.log("val_acc", self.val_accuracy, prog_bar=True)

    def test_step(self, batch, batch_idx):
        x, y = batch
        logits = self(x)
        loss = F.nll_loss(logits, y)
        preds = torch.argmax(logits, dim=1)
        self.test_accuracy.update(preds, y)
        self.log("test_loss", loss, prog_bar=True)
        self.log("test_acc", self.test_accuracy, prog_bar=True)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate)


class LitAutoEncoder(LightningModule):
    """Networks as arguments, save_hyperparameters with ignore, and nothing but a training step."""

    def __init__(self, encoder: nn.Module = None, decoder: nn.Module = None, lr: float = 1e-3):
        super().__init__()
        self.save_hyperparameters(ignore=["encoder", "decoder"])
        self.encoder = encoder or mlp(64, 16, 3)
        self.decoder = decoder or mlp(3, 16, 64)

    def training_step(self, batch, batch_idx):
        x, _ = batch
        x = x.view(x.size(0), -1)
        z = self.encoder(x)
        x_hat = self.decoder(z)
        loss = nn.functional.mse_loss(x_hat, x)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)


class GAN(LightningModule):
    """Manual optimization with two optimizers, and pictures for TensorBoard from a validation that logs no metric."""

    def __init__(self, latent_dim: int = 8, lr: float = 0.0002, b1: float = 0.5, b2: float = 0.999, **kwargs):
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.generator = nn.Sequential(mlp(latent_dim, 16, 64), nn.Sigmoid())
        self.discriminator = nn.Sequential(mlp(64, 16, 1), nn.Sigmoid())
        self.validation_z = torch.randn(8, self.hparams.latent_dim)

    def forward(self, z):
        return self.generator(z).view(-1, 1, 8, 8)

    def adversarial_loss(self, y_hat, y):
        return F.binary_cross_entropy(y_hat, y)

    def training_step(self, batch):
        imgs, _ = batch
        optimizer_g, optimizer_d = self.optimizers()
        z = torch.randn(imgs.shape[0], self.hparams.latent_dim)
        z = z.type_as(imgs)

        self.toggle_optimizer(optimizer_g)
        self.generated_imgs = self(z)
        valid = torch.ones(imgs.size(0), 1).type_as(imgs)
        g_loss = self.adversarial_loss(self.discriminator(self(z)), valid)
        self.log("g_loss", g_loss, prog_bar=True)
        self.manual_backward(g_loss)
        optimizer_g.step()
        optimizer_g.zero_grad()
        self.untoggle_optimizer(optimizer_g)

        self.toggle_optimizer(optimizer_d)
        real_loss = self.adversarial_loss(self.discriminator(imgs), valid)
        fake = torch.zeros(imgs.size(0), 1).type_as(imgs)
        fake_loss = self.adversarial_loss(self.discriminator(self(z).detach()), fake)
        d_loss = (real_loss + fake_loss) / 2
        self.log("d_loss", d_loss, prog_bar=True)
        self.manual_backward(d_loss)
        optimizer_d.step()
        optimizer_d.zero_grad()
        self.untoggle_optimizer(optimizer_d)

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        lr = self.hparams.lr
        b1 = self.hparams.b1
        b2 = self.hparams.b2
        opt_g = torch.optim.Adam(self.generator.parameters(), lr=lr, betas=(b1, b2))
        opt_d = torch.optim.Adam(self.discriminator.parameters(), lr=lr, betas=(b1, b2))
        return [opt_g, opt_d], []

    def on_validation_epoch_end(self):
        z = self.validation_z.type_as(self.generator[0][1].weight)
        sample_imgs = self(z)
        self.logger.experiment.add_image("validation/generated_images", sample_imgs[0], self.current_epoch)


class WGANGP(LightningModule):
    """A critic that learns five times as often as the generator, without a hook for validation or test."""

    def __init__(self, lambda_gp=10, n_critic=5):
        super().__init__()
        self.automatic_optimization = False
        self.lambda_gp, self.n_critic = lambda_gp, n_critic
        self.generator, self.critic = mlp(8, 16, 64), mlp(64, 16, 1)

    def gradient_penalty(self, real, fake):
        alpha = torch.rand(real.size(0), 1, device=self.device)
        mixed = (alpha * real + (1 - alpha) * fake).requires_grad_(True)
        (gradients,) = torch.autograd.grad(self.critic(mixed).sum(), mixed, create_graph=True)
        return ((gradients.norm(2, dim=1) - 1) ** 2).mean()

    def training_step(self, batch, batch_idx):
        real = batch[0].flatten(1)
        opt_g, opt_c = self.optimizers()
        fake = self.generator(torch.randn(real.size(0), 8, device=self.device))
        if (batch_idx + 1) % self.n_critic == 0:
            loss = -self.critic(fake).mean()
            opt = opt_g
        else:
            penalty = self.gradient_penalty(real, fake.detach())
            loss = self.critic(fake.detach()).mean() - self.critic(real).mean() + self.lambda_gp * penalty
            opt = opt_c
        opt.zero_grad()
        self.manual_backward(loss)
        opt.step()
        self.log_dict({"loss/critic" if opt is opt_c else "loss/generator": loss})
        return {"which": "critic" if opt is opt_c else "generator"}

    def configure_optimizers(self):
        return (
            torch.optim.RMSprop(self.generator.parameters(), lr=5e-5),
            torch.optim.RMSprop(self.critic.parameters(), lr=5e-5),
        )


class VAE(LightningModule):
    """valid/loss, a weight that grows while it trains, and a writer that is asked for scalars and histograms."""

    def __init__(self, in_dim: int = 64, latent_dim: int = 4, kl_step: float = 0.05, lr: float = 1e-3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.encoder = mlp(in_dim, 16, 2 * latent_dim)
        self.decoder = mlp(latent_dim, 16, in_dim)
        self.kl_weight = 0.0

    def loss(self, batch):
        x = batch[0].flatten(1)
        mu, log_var = self.encoder(x).chunk(2, dim=-1)
        z = mu + torch.randn_like(mu) * (0.5 * log_var).exp()
        recons = F.mse_loss(self.decoder(z), x)
        kld = torch.mean(-0.5 * torch.sum(1 + log_var - mu**2 - log_var.exp(), dim=1), dim=0)
        return recons + self.kl_weight * kld, {"recons": recons.detach(), "kld": kld.detach()}

    def training_step(self, batch, batch_idx):
        loss, parts = self.loss(batch)
        self.kl_weight = min(1.0, self.kl_weight + self.hparams.kl_step)
        self.log_dict({f"train/{name}": value for name, value in parts.items()}, on_step=True, on_epoch=True)
        self.logger.experiment.add_scalar("kl_weight", self.kl_weight, self.global_step)
        return {"loss": loss, "parts": parts}

    def validation_step(self, batch, batch_idx):
        loss, parts = self.loss(batch)
        self.log("valid/loss", loss)
        self.log("valid/kld", parts["kld"])

    def on_train_epoch_end(self):
        for name, parameter in self.named_parameters():
            self.logger.experiment.add_histogram(name, parameter, self.current_epoch)

    def test_step(self, batch, batch_idx):
        loss, _ = self.loss(batch)
        self.log("test/loss", loss)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)


class SkipsSteps(LightningModule):
    """Its step returns None for batches that it doesn't like."""

    def __init__(self):
        super().__init__()
        self.net = mlp(64, 10)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self.net(x), y)
        if batch_idx % 2 or not torch.isfinite(loss):
            return None
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("validation_loss", F.cross_entropy(self.net(x), y))

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class TwoViews(Dataset):
    """Two random views of each image."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, i):
        x, y = self.dataset[i]
        return [x + 0.1 * torch.randn_like(x), x.flip(-1) * np.random.uniform(0.8, 1.2)], y


class ContrastiveDigits(Digits):
    """The data of SimCLR and MoCo."""

    def train_dataloader(self):
        return DataLoader(TwoViews(self.train_set), batch_size=self.batch_size, shuffle=True, drop_last=True)

    def val_dataloader(self):
        return DataLoader(TwoViews(self.val_set), batch_size=self.batch_size, drop_last=True)

    def test_dataloader(self):
        return DataLoader(TwoViews(self.test_set), batch_size=self.batch_size, drop_last=True)


class SimCLR(LightningModule):
    """Contrastive learning of two views, with a cosine over the Trainer's epochs."""

    def __init__(self, hidden_dim=8, lr=5e-4, temperature=0.07, weight_decay=1e-4, max_epochs=500):
        super().__init__()
        self.save_hyperparameters()
        assert self.hparams.temperature > 0.0, "The temperature must be a positive float!"
        self.convnet = backbone()
        self.convnet.fc = nn.Sequential(nn.Linear(36, 4 * hidden_dim), nn.ReLU(inplace=True), nn.Linear(32, hidden_dim))

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams.lr, weight_decay=self.hparams.weight_decay)
        lr_scheduler = CosineAnnealingLR(optimizer, T_max=self.hparams.max_epochs, eta_min=self.hparams.lr / 50)
        return [optimizer], [lr_scheduler]

    def info_nce_loss(self, batch, mode="train"):
        imgs, _ = batch
        imgs = torch.cat(imgs, dim=0).float()
        feats = self.convnet(imgs)
        cos_sim = F.cosine_similarity(feats[:, None, :], feats[None, :, :], dim=-1)
        self_mask = torch.eye(cos_sim.shape[0], dtype=torch.bool, device=cos_sim.device)
        cos_sim.masked_fill_(self_mask, -9e15)
        pos_mask = self_mask.roll(shifts=cos_sim.shape[0] // 2, dims=0)
        cos_sim = cos_sim / self.hparams.temperature
        nll = -cos_sim[pos_mask] + torch.logsumexp(cos_sim, dim=-1)
        nll = nll.mean()
        self.log(mode + "_loss", nll)
        comb_sim = torch.cat([cos_sim[pos_mask][:, None], cos_sim.masked_fill(pos_mask, -9e15)], dim=-1)
        sim_argsort = comb_sim.argsort(dim=-1, descending=True).argmin(dim=-1)
        self.log(mode + "_acc_top1", (sim_argsort == 0).float().mean())
        self.log(mode + "_acc_mean_pos", 1 + sim_argsort.float().mean())
        return nll

    def training_step(self, batch, batch_idx):
        return self.info_nce_loss(batch, mode="train")

    def validation_step(self, batch, batch_idx):
        self.info_nce_loss(batch, mode="val")

    def test_step(self, batch, batch_idx):
        self.info_nce_loss(batch, mode="test")


class MoCo(LightningModule):
    """A momentum encoder, and a queue of keys in a buffer."""

    def __init__(self, emb_dim: int = 8, num_negatives: int = 64, encoder_momentum: float = 0.99, lr: float = 0.03):
        super().__init__()
        self.save_hyperparameters()
        self.encoder_q = nn.Sequential(backbone(), nn.Linear(36, emb_dim))
        self.encoder_k = copy.deepcopy(self.encoder_q)
        for param in self.encoder_k.parameters():
            param.requires_grad = False
        self.register_buffer("queue", F.normalize(torch.randn(emb_dim, num_negatives), dim=0))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))

    @torch.no_grad()
    def _momentum_update_key_encoder(self):
        for param_q, param_k in zip(self.encoder_q.parameters(), self.encoder_k.parameters()):
            em = self.hparams.encoder_momentum
            param_k.data = param_k.data * em + param_q.data * (1.0 - em)

    @torch.no_grad()
    def _dequeue_and_enqueue(self, keys):
        ptr = int(self.queue_ptr)
        self.queue[:, ptr : ptr + keys.shape[0]] = keys.T
        self.queue_ptr[0] = (ptr + keys.shape[0]) % self.hparams.num_negatives

    def logits(self, batch):
        (img_q, img_k), _ = batch
        q = F.normalize(self.encoder_q(img_q.float()), dim=1)
        with torch.no_grad():
            k = F.normalize(self.encoder_k(img_k.float()), dim=1)
        l_pos = torch.einsum("nc,nc->n", [q, k]).unsqueeze(-1)
        l_neg = torch.einsum("nc,ck->nk", [q, self.queue.clone().detach()])
        return torch.cat([l_pos, l_neg], dim=1) / 0.07, k

    def training_step(self, batch, batch_idx):
        self._momentum_update_key_encoder()
        logits, keys = self.logits(batch)
        loss = F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=self.device))
        self._dequeue_and_enqueue(keys)
        self.log_dict({"train_loss": loss}, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        logits, _ = self.logits(batch)
        loss = F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=self.device))
        return {"val_loss": loss}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.hparams.lr, momentum=0.9, weight_decay=1e-4)


class MeanTeacher(LightningModule):
    """A copy with averaged weights that is validated, updated after each batch."""

    def __init__(self, network: nn.Module, ema_decay: float = 0.9, lr: float = 1e-3):
        super().__init__()
        self.student = network
        self.teacher = copy.deepcopy(network)
        self.teacher.requires_grad_(False)
        self.ema_decay, self.lr = ema_decay, lr
        self.updates = 0

    def training_step(self, batch, batch_idx):
        x, y = batch
        consistency = F.mse_loss(self.student(x + 0.1 * torch.randn_like(x)), self.teacher(x).detach())
        return F.cross_entropy(self.student(x), y) + consistency

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.updates += 1
        decay = min(self.ema_decay, (1 + self.updates) / (10 + self.updates))
        with torch.no_grad():
            for t, s in zip(self.teacher.parameters(), self.student.parameters()):
                t.mul_(decay).add_(s, alpha=1 - decay)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        logits = self.teacher(x)
        self.log_dict({"val/teacher_loss": F.cross_entropy(logits, y), "val/loss": F.cross_entropy(self.student(x), y)})

    def test_step(self, batch, batch_idx):
        x, y = batch
        self.log("test/acc", (self.teacher(x).argmax(1) == y).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(filter(lambda p: p.requires_grad, self.parameters()), lr=self.lr)


class TruncatedRNN(LightningModule):
    """The hidden state goes on from one batch to the next, as a plain attribute."""

    def __init__(self, hidden_size: int = 8):
        super().__init__()
        self.rnn = nn.LSTM(8, hidden_size, batch_first=True)
        self.head = nn.Linear(hidden_size, 10)
        self.hiddens = None
        self.recent_losses = deque(maxlen=3)

    def on_train_epoch_start(self):
        self.hiddens = None

    def training_step(self, batch, batch_idx):
        x, y = batch
        out, hiddens = self.rnn(x.squeeze(1), self.hiddens)
        self.hiddens = tuple(h.detach() for h in hiddens)
        loss = F.cross_entropy(self.head(out[:, -1]), y)
        self.recent_losses.append(loss.item())
        self.log("train_loss_smooth", sum(self.recent_losses) / len(self.recent_losses))
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        out, _ = self.rnn(x.squeeze(1))
        self.log("val_loss", F.cross_entropy(self.head(out[:, -1]), y))

    def test_step(self, batch, batch_idx):
        x, y = batch
        out, _ = self.rnn(x.squeeze(1))
        self.log("test_loss", F.cross_entropy(self.head(out[:, -1]), y))

    def configure_optimizers(self):
        return {"optimizer": torch.optim.Adam(self.parameters(), 1e-2)}


class FineTuner(LightningModule):
    """A backbone that is frozen at first, with batch norm that stays in evaluation mode, and two learning rates."""

    def __init__(self, unfreeze_at: int = 1, backbone_lr: float = 1e-3, head_lr: float = 1e-2):
        super().__init__()
        self.save_hyperparameters()
        self.backbone = backbone()
        self.head = nn.Linear(36, 10)
        for p in self.backbone.parameters():
            p.requires_grad = False

    def train(self, mode=True):
        super().train(mode)
        for module in self.backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def on_train_batch_start(self, batch, batch_idx):
        if self.current_epoch == self.hparams.unfreeze_at and batch_idx == 0:
            for p in self.backbone.parameters():
                p.requires_grad = True

    def forward(self, x):
        return self.head(self.backbone(x))

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_accuracy", (self(x).argmax(-1) == y).float().mean())
        self.log("val_loss", F.cross_entropy(self(x), y))

    def test_step(self, batch, batch_idx):
        x, y = batch
        self.log("test_accuracy", (self(x).argmax(-1) == y).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(
            [
                {"params": self.backbone.parameters(), "lr": self.hparams.backbone_lr},
                {"params": self.head.parameters(), "lr": self.hparams.head_lr},
            ],
            momentum=0.9,
        )


class TwoValidationSets(Digits):
    """Digits as they are, and digits upside down."""

    def val_dataloader(self):
        images, targets = zip(*self.val_set)
        flipped = TensorDataset(torch.stack(images).flip(-2), torch.stack(targets))
        return [self.loader(self.val_set), self.loader(flipped)]


class ManyLoaders(LightningModule):
    """Several validation loaders."""

    def __init__(self, lr: float = 1e-3):
        super().__init__()
        self.lr = lr
        self.net = mlp(64, 10)
        self.accs = nn.ModuleList(torchmetrics.Accuracy("multiclass", num_classes=10) for _ in range(2))

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self.net(x), y)

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        logits = self.net(x)
        self.log("val_loss", F.cross_entropy(logits, y))
        self.accs[dataloader_idx](logits, y)
        self.log("val_acc", self.accs[dataloader_idx])

    def test_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        self.log("test_loss", F.cross_entropy(self.net(x), y))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.lr)


class Collections(LightningModule):
    """Collections of torchmetrics, computed and reset by hand."""

    def __init__(self, num_classes: int, lr=1e-3):
        super().__init__()
        self.save_hyperparameters()
        self.net = mlp(64, num_classes)
        self.loss_fn = nn.CrossEntropyLoss()
        metrics = torchmetrics.MetricCollection(
            {
                "accuracy": torchmetrics.Accuracy(task="multiclass", num_classes=num_classes),
                "f1": torchmetrics.F1Score(task="multiclass", num_classes=num_classes, average="macro"),
                "auroc": torchmetrics.AUROC(task="multiclass", num_classes=num_classes),
            }
        )
        self.train_metrics = metrics.clone(prefix="train_")
        self.val_metrics = metrics.clone(prefix="val_")
        self.test_metrics = metrics.clone(prefix="test_")
        self.val_confusion = torchmetrics.ConfusionMatrix(task="multiclass", num_classes=num_classes)

    def training_step(self, batch, batch_idx):
        x, y = batch
        logits = self.net(x)
        loss = self.loss_fn(logits, y)
        self.log_dict(self.train_metrics(logits, y))
        self.log("train_loss", loss)
        return loss

    def on_train_epoch_end(self):
        self.log_dict({f"{k}_epoch": v for k, v in self.train_metrics.compute().items()})
        self.train_metrics.reset()

    def validation_step(self, batch, batch_idx):
        x, y = batch
        logits = self.net(x)
        self.val_metrics.update(logits, y)
        self.val_confusion.update(logits, y)
        self.log("val_loss", self.loss_fn(logits, y))

    def on_validation_epoch_end(self):
        self.log_dict(self.val_metrics.compute())
        self.log("val_hits", self.val_confusion.compute().diagonal().sum().float())
        self.val_metrics.reset()
        self.val_confusion.reset()

    def test_step(self, batch, batch_idx):
        x, y = batch
        self.test_metrics.update(self.net(x), y)

    def on_test_epoch_end(self):
        self.log_dict(self.test_metrics.compute())
        self.test_metrics.reset()

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=self.hparams.lr)


class LBFGSRegression(LightningModule):
    """An optimizer that calls its closure several times."""

    def __init__(self, input_dim=64, num_classes=10, bias=True, learning_rate=0.1, l2_strength=1e-4):
        super().__init__()
        self.save_hyperparameters()
        self.linear = nn.Linear(self.hparams.input_dim, self.hparams.num_classes, bias=bias)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self.linear(x.view(x.size(0), -1)), y, reduction="sum")
        loss += self.hparams.l2_strength * self.linear.weight.pow(2).sum()
        loss /= x.size(0)
        self.log("train_ce_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_ce_loss", F.cross_entropy(self.linear(x.view(x.size(0), -1)), y))

    def test_step(self, batch, batch_idx):
        x, y = batch
        self.log("test_ce_loss", F.cross_entropy(self.linear(x.view(x.size(0), -1)), y))

    def configure_optimizers(self):
        return torch.optim.LBFGS(self.parameters(), lr=self.hparams.learning_rate, max_iter=3)


class AsksTheTrainer(LightningModule):
    """OneCycleLR over the whole run, whose length it asks the Trainer and the DataModule for."""

    def __init__(self, max_lr: float = 0.02):
        super().__init__()
        self.max_lr = max_lr

    def setup(self, stage):
        if stage == "fit":
            self.train_samples = len(self.trainer.datamodule.train_dataloader().dataset)
        self.net = mlp(64, 16, self.trainer.datamodule.classes)
        self.total_steps = self.trainer.max_epochs * self.trainer.num_training_batches if stage == "fit" else 0

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self.net(x), y)
        self.log("train_loss", loss, on_epoch=True)
        self.log("lr", self.lr_schedulers().get_last_lr()[0])
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("eval/loss", F.cross_entropy(self.net(x), y))

    def test_step(self, batch, batch_idx):
        x, y = batch
        self.log("test_loss", F.cross_entropy(self.net(x), y))

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=self.max_lr / 25, momentum=0.9)
        scheduler = OneCycleLR(optimizer, max_lr=self.max_lr, total_steps=int(self.trainer.estimated_stepping_batches))
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


class OwnClipping(LightningModule):
    """Clips in a way of its own, and steps a schedule that is not torch's in a way of its own."""

    def __init__(self):
        super().__init__()
        self.net = mlp(64, 16, 10)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self.net(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("loss/val", F.cross_entropy(self.net(x), y))

    def test_step(self, batch, batch_idx):
        x, y = batch
        self.log("loss/test", F.cross_entropy(self.net(x), y))

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None):
        value = 0.5 if self.current_epoch == 0 else 0.1
        self.clip_gradients(optimizer, gradient_clip_val=value, gradient_clip_algorithm="norm")

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=1e-2)
        return [optimizer], [{"scheduler": NotTorchs(optimizer), "interval": "epoch"}]

    def lr_scheduler_step(self, scheduler, metric):
        scheduler.step(epoch=self.current_epoch + 1)


class NotTorchs:
    """A schedule like timm's."""

    def __init__(self, optimizer):
        self.optimizer, self.epoch = optimizer, 0

    def step(self, epoch):
        self.epoch = epoch
        for group in self.optimizer.param_groups:
            group["lr"] = 0.01 * (1 + math.cos(math.pi * epoch / 5)) / 2

    def state_dict(self):
        return {"epoch": self.epoch}

    def load_state_dict(self, state):
        self.epoch = state["epoch"]


class KeepsState(LightningModule):
    """Attributes that change while it trains, the lists of outputs of Lightning 2, and hooks for its checkpoints."""

    def __init__(self, loss: str = "ce", activation=nn.ReLU, class_weights: list = None):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), activation(), nn.Linear(16, 10))
        self.best_acc = 0
        self.training_step_outputs = []
        self.validation_step_outputs = []
        self.seen = {"images": 0, "per_class": torch.zeros(10)}
        self.best_before = 0

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self.net(x), y)
        self.training_step_outputs.append(loss.detach())
        self.seen["images"] += len(x)
        self.seen["per_class"] += torch.bincount(y.cpu(), minlength=10)
        return loss * (1 + 0.001 * self.seen["images"])

    def on_train_epoch_end(self):
        self.log("train_loss", torch.stack(self.training_step_outputs).mean())
        self.log("seen", float(self.seen["images"]))
        self.training_step_outputs.clear()

    def validation_step(self, batch, batch_idx):
        x, y = batch
        logits = self.net(x)
        self.validation_step_outputs.append({"loss": F.cross_entropy(logits, y), "hits": logits.argmax(1) == y})

    def on_validation_epoch_end(self):
        acc = torch.cat([out["hits"] for out in self.validation_step_outputs]).float().mean()
        loss = torch.stack([out["loss"] for out in self.validation_step_outputs]).mean()
        self.validation_step_outputs.clear()
        self.best_acc = max(self.best_acc, acc.item())
        self.log_dict({"val_loss": loss, "val_acc": acc, "best_acc": self.best_acc}, prog_bar=True)

    def test_step(self, batch, batch_idx):
        x, y = batch
        self.log("test_loss", F.cross_entropy(self.net(x), y))

    def on_save_checkpoint(self, checkpoint):
        checkpoint["best_acc"] = max(self.best_acc, self.best_before)

    def on_load_checkpoint(self, checkpoint):
        self.best_before = checkpoint["best_acc"]

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


class Plateau(LightningModule):
    """ReduceLROnPlateau with a metric of its own."""

    def __init__(self, patience: int = 0):
        super().__init__()
        self.patience = patience
        self.net = mlp(64, 10)
        self.acc = torchmetrics.Accuracy("multiclass", num_classes=10)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self.net(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        logits = self.net(x)
        self.acc(logits, y)
        self.log("valid_loss", F.cross_entropy(logits, y), on_step=False, on_epoch=True)
        self.log("valid_acc", self.acc, on_step=False, on_epoch=True)

    def test_step(self, batch, batch_idx):
        x, y = batch
        self.log("test_loss", F.cross_entropy(self.net(x), y))

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.01)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {
                "scheduler": ReduceLROnPlateau(optimizer, mode="max", patience=self.patience, threshold=0.5),
                "monitor": "valid_acc",
                "interval": "epoch",
                "frequency": 1,
            },
        }


class OldConfig(LightningModule):
    """One dict with all settings, as in many repositories of papers."""

    def __init__(self, config: dict = {"lr": 0.01, "widths": [16, 16], "optim": {"name": "sgd", "nesterov": True}}):
        super().__init__()
        self.config = config
        self.save_hyperparameters(config)
        self.net = mlp(64, *config["widths"], 10)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self.net(x), y)
        tensorboard_logs = {"train_loss": loss}
        return {"loss": loss, "log": tensorboard_logs}

    def validation_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self.net(x), y)
        self.log("val/loss_epoch", loss)
        return loss

    def test_step(self, batch, batch_idx):
        return self.validation_step(batch, batch_idx)

    def configure_optimizers(self):
        nesterov = self.hparams.optim["nesterov"]
        optimizer = torch.optim.SGD(self.parameters(), lr=self.hparams.lr, momentum=0.9, nesterov=nesterov)
        return [optimizer], [LambdaLR(optimizer, lambda epoch: 0.9**epoch)]


class OwnCallbacks(LightningModule):
    """Brings callbacks of its own, a ModelCheckpoint among them."""

    def __init__(self):
        super().__init__()
        self.net = mlp(64, 10)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self.net(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", F.cross_entropy(self.net(x), y))

    test_step = validation_step

    def configure_callbacks(self):
        return [EarlyStopping(monitor="val_loss", mode="min"), ModelCheckpoint(monitor="val_loss", save_last=True)]

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


class ManualAccumulation(LightningModule):
    """Accumulates, clips and schedules by hand; sharpness-aware: two passes a step."""

    def __init__(self, rho: float = 0.05):
        super().__init__()
        self.automatic_optimization = False
        self.rho = rho
        self.net = mlp(64, 16, 10)

    def training_step(self, batch, batch_idx):
        x, y = batch
        opt, sch = self.optimizers(), self.lr_schedulers()
        loss = F.cross_entropy(self.net(x), y)
        self.manual_backward(loss / 2)
        if (batch_idx + 1) % 2 == 0:
            with torch.no_grad():
                moved = [(p, self.rho * p.grad / (p.grad.norm() + 1e-12)) for p in self.net.parameters()]
                for p, e in moved:
                    p.add_(e)
            opt.zero_grad()
            self.manual_backward(F.cross_entropy(self.net(x), y))
            with torch.no_grad():
                for p, e in moved:
                    p.sub_(e)
            self.clip_gradients(opt, gradient_clip_val=0.5, gradient_clip_algorithm="norm")
            opt.step()
            opt.zero_grad()
            sch.step()
        self.log("train/loss", loss, on_step=True, on_epoch=True, prog_bar=True)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val/loss", F.cross_entropy(self.net(x), y), prog_bar=True)

    def test_step(self, batch, batch_idx):
        x, y = batch
        self.log("test/loss", F.cross_entropy(self.net(x), y))

    def configure_optimizers(self):
        opt = torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)
        return [opt], [torch.optim.lr_scheduler.StepLR(opt, step_size=1, gamma=0.9)]


class Distillation(LightningModule):
    """A teacher that is hidden from the weights, a criterion as an argument, and two metrics per loader by hand."""

    def __init__(self, student: nn.Module, criterion=F.cross_entropy, alpha: float = 0.5, temperature=4):
        super().__init__()
        self.save_hyperparameters(ignore=["student"])
        self.student = student
        torch.manual_seed(7)
        self._teacher = [mlp(64, 16, 10).eval().requires_grad_(False)]
        self.criterion = criterion

    @property
    def teacher(self):
        return self._teacher[0].to(self.device)

    def training_step(self, batch, batch_idx):
        x, y = batch
        logits, t = self.student(x), self.hparams.temperature
        soft = F.kl_div(F.log_softmax(logits / t, 1), F.softmax(self.teacher(x) / t, 1), reduction="batchmean") * t * t
        loss = self.hparams.alpha * soft + (1 - self.hparams.alpha) * self.criterion(logits, y)
        self.log_dict({"train/loss": loss, "train/soft": soft}, prog_bar=True)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        return self._evaluate(self.student(x), y, "val")

    def test_step(self, batch, batch_idx):
        x, y = batch
        return self._evaluate(self.student(x), y, "test")

    def _evaluate(self, logits, y, stage: str) -> dict[str, Any]:
        values = {f"{stage}/loss": F.cross_entropy(logits, y), f"{stage}/error": (logits.argmax(1) != y).float().mean()}
        self.log_dict(values, on_epoch=True)
        return values

    def predict_step(self, batch, batch_idx, dataloader_idx=0):
        x, _ = batch
        return self.student(x).argmax(1)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.student.parameters(), lr=1e-3)
        scheduler = torch.optim.lr_scheduler.SequentialLR(
            optimizer,
            [
                torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=2),
                CosineAnnealingLR(optimizer, T_max=max(1, self.trainer.estimated_stepping_batches - 2)),
            ],
            milestones=[2],
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class WandbStyle(LightningModule):
    """Written for W&B: its run is asked for by the logger, and pictures are given to the logger itself."""

    def __init__(self, lr: float = 1e-2, batch_size: int = 32):
        super().__init__()
        self.save_hyperparameters()
        self.net = mlp(64, 10)

    def on_fit_start(self):
        self.logger.watch(self.net, log="all")

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self.net(x), y)
        self.logger.experiment.log({"my/loss": loss.item(), "my/batch": batch_idx})
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val/loss", F.cross_entropy(self.net(x), y))
        if batch_idx == 0:
            self.logger.log_image(key="samples", images=[x[0], x[1]], caption=["a", "b"])

    def test_step(self, batch, batch_idx):
        x, y = batch
        self.log("test/loss", F.cross_entropy(self.net(x), y))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)


class DDPM(LightningModule):
    """Diffusion: random steps, tensors that are plain attributes, and averaged weights in a dict that it saves."""

    def __init__(self, n_steps: int = 10, lr: float = 1e-3):
        super().__init__()
        self.save_hyperparameters()
        self.net = mlp(65, 16, 64)
        self.beta = torch.linspace(1e-4, 0.02, n_steps)
        self.alpha_bar = torch.cumprod(1.0 - self.beta, dim=0)
        self.ema = {k: v.detach().clone() for k, v in self.net.state_dict().items()}

    def loss(self, batch):
        x0 = batch[0].flatten(1)
        t = torch.randint(0, self.hparams.n_steps, (len(x0),), device=self.device)
        eps = torch.randn_like(x0)
        a = self.alpha_bar.to(self.device)[t, None]
        xt = a.sqrt() * x0 + (1 - a).sqrt() * eps
        return F.mse_loss(self.net(torch.cat([xt, t[:, None] / self.hparams.n_steps], 1)), eps)

    def training_step(self, batch, batch_idx):
        loss = self.loss(batch)
        self.log("train/simple_loss", loss, on_step=True, on_epoch=True)
        return loss

    def on_before_zero_grad(self, optimizer):
        for k, v in self.net.state_dict().items():
            self.ema[k].mul_(0.9).add_(v, alpha=0.1)

    def validation_step(self, batch, batch_idx):
        weights = copy.deepcopy(self.net.state_dict())
        self.net.load_state_dict(self.ema)
        self.log("val/simple_loss", self.loss(batch))
        self.net.load_state_dict(weights)

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)


class OwnLoaders(LightningModule):
    """The data are its own, as in the first versions of the tutorials: it prepares, splits and loads them."""

    def __init__(self, batch_size: int = 16):
        super().__init__()
        self.batch_size = batch_size
        self.net = nn.Linear(3, 1)

    def prepare_data(self):
        pass

    def setup(self, stage=None):
        x = torch.randn(80, 3, generator=torch.Generator().manual_seed(0))
        self.train_data = TensorDataset(x[:64], x[:64].sum(1, keepdim=True))
        self.val_data = TensorDataset(x[64:], x[64:].sum(1, keepdim=True))

    def train_dataloader(self):
        return DataLoader(self.train_data, batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.val_data, batch_size=self.batch_size)

    test_dataloader = val_dataloader

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.mse_loss(self.net(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", F.mse_loss(self.net(x), y))

    def test_step(self, batch, batch_idx):
        x, y = batch
        self.log("test_loss", F.mse_loss(self.net(x), y))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


class Transfer(LightningModule):
    """A backbone that a callback of Lightning's thaws, in a group of its own whose learning rate grows."""

    def __init__(self, lr: float = 1e-2):
        super().__init__()
        self.lr = lr
        self.backbone = backbone()
        self.head = nn.Linear(36, 10)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self.head(self.backbone(x)), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", F.cross_entropy(self.head(self.backbone(x)), y))

    test_step = validation_step

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(filter(lambda p: p.requires_grad, self.parameters()), lr=self.lr, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[2], gamma=0.5)]
