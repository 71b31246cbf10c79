"""CKACallback: what it writes and logs, what it compares with, and that training never notices it."""

import random
import threading
import warnings

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import nn
from torchmetrics.classification import MulticlassAccuracy

from lightning_hpc.cka import CKACallback, CKAError, compare
from lightning_hpc.training.averaging import EMA

from .conftest import Data, Lit, Net

LAYERS = ["0", "1", "2", "3", "6"]


def trainer(folder, *callbacks, epochs=2, **kwargs):
    kwargs = {"logger": False, "enable_checkpointing": False} | kwargs
    return Trainer(
        max_epochs=epochs, default_root_dir=folder, callbacks=list(callbacks), accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False, **kwargs,
    )  # fmt: skip


def fit(folder, *callbacks, model=None, ckpt_path=None, **kwargs):
    seed_everything(0, verbose=False)
    model = Lit() if model is None else model
    run = trainer(folder, *callbacks, **kwargs)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*(num_workers|log_every_n_steps|GPU|checkpoint|litlogger).*")
        run.fit(model, datamodule=Data(), ckpt_path=ckpt_path)
    return model, run


def stored(folder, epoch):
    """The map of an epoch that is `epoch` to Lightning; files count from 1."""
    return np.load(folder / "cka" / f"epoch-{epoch + 1:03d}.npz")


def hooks(model):
    return [h for m in model.modules() for h in (*m._forward_hooks, *m._forward_pre_hooks)]


# ---- what it makes ----


def test_maps_pictures_and_numbers(tmp_path):
    callback = CKACallback(reference="init")
    logger = TensorBoardLogger(tmp_path, name="", version="")
    model, run = fit(tmp_path, callback, epochs=3, logger=[CSVLogger(tmp_path, "csv"), logger])
    names = sorted(path.name for path in (tmp_path / "cka").iterdir())
    assert names == [f"epoch-00{i}.{kind}" for i in (1, 2, 3) for kind in ("npz", "png")] + ["init.pt"]
    assert callback.picture == tmp_path / "cka" / "epoch-003.png"
    data = stored(tmp_path, 2)
    assert data["rows"].tolist() == data["columns"].tolist() == LAYERS and data["samples"] == 64
    assert str(data["column_label"]) == "initial weights"
    diagonal = dict(zip(LAYERS, data["matrix"].diagonal(), strict=True))
    for name, value in diagonal.items():
        assert run.callback_metrics[f"cka/init/{name}"].item() == pytest.approx(value, abs=1e-6)
    assert run.callback_metrics["cka/init/mean"].item() == pytest.approx(np.mean(list(diagonal.values())), abs=1e-6)
    assert data["matrix"][0, 0] < stored(tmp_path, 0)["matrix"][0, 0] < 1, "training moves away from the start"

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0}).Reload()
    assert len(events.Images("cka/init/map")) == 3 and len(events.Scalars("cka/init/mean")) == 3


def test_picture_goes_to_wandb(tmp_path):
    from unittest.mock import Mock

    from lightning.pytorch.loggers import WandbLogger

    logger = WandbLogger(save_dir=tmp_path, mode="disabled")
    logger.log_image = Mock()
    fit(tmp_path, CKACallback("self"), epochs=1, logger=logger)
    path = tmp_path / "cka" / "epoch-001.png"
    logger.log_image.assert_called_once_with("cka/self/map", [str(path)], step=4)


def test_init_is_the_state_at_the_start_and_matches_compare(tmp_path):
    initial = Lit()
    model = Lit()
    model.load_state_dict(initial.state_dict())
    fit(tmp_path, CKACallback(), model=model)
    expected = compare(model.network, initial.network, Data().val_dataloader())
    np.testing.assert_allclose(stored(tmp_path, 1)["matrix"], expected.matrix, atol=1e-6)


def test_init_survives_a_resume(tmp_path):
    whole, _ = fit(tmp_path / "whole", CKACallback(), epochs=4)
    checkpoint = ModelCheckpoint(tmp_path / "parts", save_last=True)
    fit(tmp_path / "parts", CKACallback(), checkpoint, epochs=2, enable_checkpointing=True)
    first = (tmp_path / "parts" / "cka" / "init.pt").read_bytes()
    torch.manual_seed(99)  # another start: the weights in the file count
    resumed = Lit()
    run = trainer(tmp_path / "parts", CKACallback(), epochs=4)
    run.fit(resumed, datamodule=Data(), ckpt_path=tmp_path / "parts" / "last.ckpt")
    assert (tmp_path / "parts" / "cka" / "init.pt").read_bytes() == first
    start = torch.load(tmp_path / "parts" / "cka" / "init.pt", weights_only=True)
    network = Net()
    network.load_state_dict(start["state_dict"])
    expected = compare(resumed.network, network, Data().val_dataloader())
    np.testing.assert_allclose(stored(tmp_path / "parts", 3)["matrix"], expected.matrix, atol=1e-6)
    assert str(stored(tmp_path / "parts", 3)["column_label"]) == "initial weights"


def test_a_resume_that_lost_the_initial_weights_says_so(tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, save_last=True)
    fit(tmp_path, checkpoint, epochs=2, enable_checkpointing=True)
    run = trainer(tmp_path / "new", CKACallback(), epochs=3)
    with pytest.warns(UserWarning, match="init.pt was missing, so the reference is not the initial weights but step 8"):
        run.fit(Lit(), datamodule=Data(), ckpt_path=tmp_path / "last.ckpt")
    assert str(stored(tmp_path / "new", 2)["column_label"]) == "weights at step 8"


def test_self_checkpoint_and_module_references(tmp_path):
    fit(tmp_path / "self", CKACallback("self", layers=["0", "2", "6"]))
    data = stored(tmp_path / "self", 1)
    np.testing.assert_allclose(data["matrix"].diagonal(), 1, atol=1e-6)
    np.testing.assert_array_equal(data["matrix"], data["matrix"].T)

    reference = Lit()
    Trainer(logger=False, enable_checkpointing=False, barebones=False).strategy.connect(reference)
    path = tmp_path / "reference.ckpt"
    torch.save({"state_dict": reference.state_dict()}, path)
    model, _ = fit(tmp_path / "path", CKACallback(str(path)))
    expected = compare(model.network, reference.network, Data().val_dataloader()).matrix
    np.testing.assert_allclose(stored(tmp_path / "path", 1)["matrix"], expected, atol=1e-6)
    fit(tmp_path / "lit", CKACallback(reference))
    np.testing.assert_allclose(stored(tmp_path / "lit", 1)["matrix"], expected, atol=1e-6)

    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 8))
    other.train()
    callback = CKACallback(other, reference_layers=["1", "3"], max_batches=2)
    model, run = fit(tmp_path / "other", callback)
    data = stored(tmp_path / "other", 1)
    assert data["columns"].tolist() == ["1", "3"] and data["samples"] == 32
    assert other.training and all(p.requires_grad for p in other.parameters()), "the user's module is copied"
    assert "cka/reference/mean" in run.callback_metrics


def test_ema_compares_the_model_with_its_average(tmp_path):
    averaging = EMAWeightAveraging(decay=0.9)

    class Keep(Callback):
        """Both sets of weights as they are while the model trains, just before each validation."""

        def on_validation_start(self, trainer, module):
            if not trainer.sanity_checking:
                self.current, self.average = Lit(), Lit()
                self.current.load_state_dict(module.state_dict())
                self.average.load_state_dict(averaging._average_model.module.state_dict())

    for order in (0, 1, 2):
        keep, callback = Keep(), CKACallback("ema")
        averaging = EMA(decay=0.9, evaluate="both") if order == 2 else EMAWeightAveraging(decay=0.9)
        both = [averaging, callback]
        fit(tmp_path / str(order), keep, *(both if order else both[::-1]))
        expected = compare(keep.current.network, keep.average.network, Data().val_dataloader()).matrix
        data = stored(tmp_path / str(order), 1)
        np.testing.assert_allclose(data["matrix"], expected, atol=1e-6)
        assert data["matrix"][-1, -1] < 1 - 1e-6 and not np.allclose(data["matrix"], data["matrix"].T, atol=1e-4)
        assert str(data["column_label"]) == "averaged weights"
    with pytest.raises(CKAError, match="'ema' needs a weight-averaging callback; add EMAWeightAveraging"):
        fit(tmp_path, CKACallback("ema"))


def test_schedule_and_batches(tmp_path):
    callback = CKACallback("self", every_n_epochs=3, max_batches=1)
    fit(tmp_path, callback, epochs=6)
    names = sorted(path.stem for path in (tmp_path / "cka").glob("*.npz"))
    assert names == ["epoch-001", "epoch-004", "epoch-006"], "every third, and the last"
    assert stored(tmp_path, 0)["samples"] == 16


def test_another_validation_loader_is_not_mixed_in(tmp_path):
    class Two(Data):
        def val_dataloader(self):
            return [super().val_dataloader(), Data(8, 8).val_dataloader()]

    class LitTwo(Lit):
        def validation_step(self, batch, index, dataloader_idx=0):
            super().validation_step(batch, index)

    trainer(tmp_path, CKACallback("self"), epochs=1).fit(LitTwo(), datamodule=Two())
    assert stored(tmp_path, 0)["samples"] == 64


# ---- that training never notices ----


class Everything(Callback):
    """Bit patterns of all that training consists of, at the start of every batch and validation."""

    def __init__(self):
        self.seen = []

    def look(self, trainer, module, *_):
        optimizer = trainer.optimizers[0].state_dict()["state"]
        self.seen.append(
            (
                [value.clone() for value in module.state_dict().values()],
                [value["momentum_buffer"].clone() for value in optimizer.values()],
                torch.get_rng_state(),
                random.getstate(),
                np.random.get_state()[1].tolist(),
                [child.training for child in module.modules()],
                [(p.requires_grad, None if p.grad is None else p.grad.clone()) for p in module.parameters()],
                hooks(module),
                list(module.state_dict()),
            )  # fmt: skip
        )

    on_train_batch_start = on_validation_epoch_end = on_train_end = look


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


class Noisy(Net):
    """Draws random numbers in evaluation too, from all three generators."""

    def forward(self, x):
        noise = random.random() + np.random.rand() + torch.rand(()).item()
        return super().forward(x + 0.1 * noise)


@pytest.mark.parametrize("network", [Net, Noisy])
@pytest.mark.parametrize("reference", ["self", "init", "ema", "module", "checkpoint"])
def test_training_is_bit_identical(reference, network, tmp_path):
    path = tmp_path / "reference.ckpt"
    torch.save({"state_dict": Lit(network()).state_dict()}, path)
    results = []
    for on in (False, True):
        torch.manual_seed(5)
        look, averaging = Everything(), EMAWeightAveraging(decay=0.9)
        others = [averaging] if reference == "ema" else []
        save = ModelCheckpoint(tmp_path / str(on), save_last=True)
        value = {"module": Noisy(), "checkpoint": str(path)}.get(reference, reference)
        cka = [CKACallback(value)] if on else []
        torch.manual_seed(5)
        model = Lit(network())
        model.network[0].weight.requires_grad_(False)  # what a callback that "restores" would turn on again
        fit(tmp_path, *cka, look, *others, save, model=model, epochs=2, enable_checkpointing=True)
        checkpoint = torch.load(tmp_path / str(on) / "last.ckpt", weights_only=False)
        results.append((look.seen, sorted(checkpoint), checkpoint["state_dict"], sorted(checkpoint["callbacks"])))
    (seen_off, *off), (seen_on, *on) = results
    assert len(seen_off) > 8
    assert equal(seen_off, seen_on)
    assert off[0] == on[0] and list(off[1]) == list(on[1]) and equal(list(off[1].values()), list(on[1].values()))
    assert [key.split("{")[0] for key in off[2]] == [key.split("{")[0] for key in on[2]], "no state of its own"
    assert (tmp_path / "cka" / "epoch-002.npz").exists()


class Fails(Lit):
    def validation_step(self, batch, index):
        super().validation_step(batch, index)
        if not self.trainer.sanity_checking and index == 1:
            raise self.error


@pytest.mark.parametrize("error", [RuntimeError("boom"), SystemExit(3)])
def test_hooks_are_gone_after_a_validation_that_raised(error, tmp_path):
    model = Fails()
    model.error = error
    with pytest.raises(type(error)):
        fit(tmp_path, CKACallback("init"), model=model)
    assert hooks(model) == []
    assert not (tmp_path / "cka" / "epoch-001.npz").exists()


def test_validation_raising_inside_the_network(tmp_path):
    class Explodes(Net):
        def forward(self, x):
            x = super().forward(x)
            if not self.training and self.armed:
                raise RuntimeError("boom")
            return x

    class Arm(Callback):
        def on_train_start(self, trainer, module):
            module.network.armed = True

    model = Lit(Explodes())
    model.network.armed = False
    with pytest.raises(RuntimeError, match="boom"):
        fit(tmp_path, Arm(), CKACallback("self"), model=model)
    assert hooks(model) == []


@pytest.mark.parametrize("way", ["wrapper", "in place", "inner"])
def test_compiled_networks(way, tmp_path):
    plain, _ = fit(tmp_path / "plain", CKACallback("init"), model=Lit(), epochs=1)
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = Lit()
    seed_everything(0, verbose=False)
    model = Lit()
    names = LAYERS
    if way == "wrapper":
        model.network = torch.compile(model.network, backend="aot_eager")
    elif way == "in place":
        model.network.compile(backend="aot_eager")
    else:
        model.network[0].compile(backend="aot_eager")
        model.network[6] = torch.compile(model.network[6], backend="aot_eager")
    before = list(model.state_dict())
    run = trainer(tmp_path / way, CKACallback("init"), epochs=1)
    seed_everything(0, verbose=False)
    run.fit(model, datamodule=Data())
    assert hooks(model) == [] and list(model.state_dict()) == before
    data = stored(tmp_path / way, 0)
    assert data["rows"].tolist() == names
    init = torch.load(tmp_path / way / "cka" / "init.pt", weights_only=True)["state_dict"]
    network = Net()
    network.load_state_dict({key.replace("_orig_mod.", ""): value for key, value in init.items()})
    trained = Net()
    trained.load_state_dict(
        {k.replace("_orig_mod.", "").removeprefix("network."): v for k, v in model.state_dict().items()}
    )
    expected = compare(trained, network, Data().val_dataloader()).matrix
    np.testing.assert_allclose(data["matrix"], expected, atol=1e-5)


class SameOnEveryRank(Callback):
    def on_fit_end(self, trainer, module):
        (callback,) = (other for other in trainer.callbacks if isinstance(other, CKACallback))
        matrices = trainer.strategy.all_gather(torch.as_tensor(callback.map.matrix))
        assert len(matrices) == 2 and torch.equal(matrices[0], matrices[1]), "every rank has the same map"


def test_two_ranks_equal_one_process(tmp_path):
    """Two processes over gloo, each with every second sample, against the same batches one after the other.

    They are forked: this process has imported torch already.
    """
    # Batch norm and its like work on each rank's half; the validated network must be one function of a sample.
    callback = CKACallback("init", layers=["0", "2"])
    model = Lit()
    two = dict(devices=2, strategy="ddp_fork", num_sanity_val_steps=0)
    run = trainer(tmp_path, callback, SameOnEveryRank(), **two)
    run.fit(model, datamodule=Data(72, 16))
    trained, initial = model.network, Net()
    initial.load_state_dict(torch.load(tmp_path / "cka" / "init.pt", weights_only=True)["state_dict"])
    assert not torch.equal(trained[0].weight, initial[0].weight), "the trained weights have come back"
    images = Data(72).set.tensors[0]
    batches = [part for rank in (0, 1) for part in images[rank::2].split(16)]  # 16, 16 and 4 samples on each rank
    expected = compare(trained, initial, batches, layers=["0", "2"])
    data = stored(tmp_path, 1)
    assert data["samples"] == expected.samples == 72
    np.testing.assert_allclose(data["matrix"], expected.matrix, atol=1e-9)


# ---- settings that can't work are errors before training ----


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"layers": ["convolution"]}, "no layer of Net matches 'convolution'; nearest:"),
        ({"reference": "nowhere.ckpt"}, "no checkpoint nowhere.ckpt; reference is a path, or one of self, init, ema"),
        ({"module": "backbone"}, "Trained has no module 'backbone'; it has network"),
        ({"reference": nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), "layers": ["0"], "reference_layers": ["x"]},
         "no layer of Sequential matches 'x'"),
        ({"every_n_epochs": 0}, "start at 1"),
        ({"kernel": "cubic"}, "unknown kernel 'cubic'"),
    ],
)  # fmt: skip
def test_errors_come_before_training(kwargs, message, tmp_path):
    class Trained(Lit):
        def training_step(self, batch, index):
            raise AssertionError("training started")

    with pytest.raises(CKAError, match=message):
        fit(tmp_path, CKACallback(**kwargs), model=Trained())


def test_checkpoints_that_do_not_fit_or_need_code(tmp_path):
    torch.save({"state_dict": {"network.0.weight": torch.zeros(2)}}, tmp_path / "small.ckpt")
    with pytest.raises(CKAError, match=r"weights in .*small.ckpt don't fit Net: (.|\n)*0.weight"):
        fit(tmp_path, CKACallback(str(tmp_path / "small.ckpt")))
    torch.save({"state_dict": {}, "code": Trainer}, tmp_path / "code.ckpt")
    with pytest.raises(CKAError, match="code.ckpt is not a checkpoint that can be read without running code"):
        fit(tmp_path, CKACallback(str(tmp_path / "code.ckpt")))


# ---- what goes wrong later is a warning, and training goes on ----


class Several(Lit):
    """Two networks, called one after the other, and never as one module."""

    def __init__(self):
        super().__init__(nn.Sequential(nn.Flatten(), nn.Linear(64, 8)))
        self.encoder, self.head, self.accuracy = self.network, nn.Linear(8, 3), MulticlassAccuracy(3)
        del self.network

    def training_step(self, batch, index):
        return self.loss(self.head(self.encoder(batch[0])), batch[1])

    def validation_step(self, batch, index):
        self.head(self.encoder(batch[0]))


def test_a_module_without_a_network(tmp_path):
    fit(tmp_path, CKACallback("self"), model=Several(), epochs=1)
    assert stored(tmp_path, 0)["rows"].tolist() == ["encoder.1", "head"]
    with pytest.warns(UserWarning, match="CKA is off .*Several is not called in validation_step; name the module"):
        _, run = fit(tmp_path / "init", CKACallback("init"), model=Several())
    assert run.state.finished and not list((tmp_path / "init" / "cka").glob("epoch*"))
    fit(tmp_path / "named", CKACallback("init", module="encoder"), model=Several(), epochs=1)
    assert stored(tmp_path / "named", 0)["rows"].tolist() == ["1"]


def test_a_reference_that_cannot_run_and_layers_that_do_not(tmp_path):
    with pytest.warns(UserWarning, match="CKA is off .*reference can't be run on the validation data: mat1"):
        _, run = fit(tmp_path / "a", CKACallback(nn.Sequential(nn.Flatten(), nn.Linear(7, 2), nn.ReLU())))
    assert run.state.finished
    network = Net()
    network.unused = nn.Linear(2, 2)
    network.forward = lambda x: nn.Sequential(*list(network)[:7])(x)
    with pytest.warns(UserWarning, match="CKA is off .*layer 'unused' did not run"):
        _, run = fit(tmp_path / "b", CKACallback("self", layers=["0", "unused"]), model=Lit(network))
    assert run.state.finished and hooks(network) == []


def test_nan_activations_and_constant_layers(tmp_path):
    class Break(Callback):
        def on_validation_start(self, trainer, module):
            if trainer.current_epoch == 1 and not trainer.sanity_checking:
                module.network[6].weight.data.fill_(torch.nan)

    with pytest.warns(UserWarning, match="NaN or infinite activations in '6' .model A.*No map epoch-002"):
        _, run = fit(tmp_path, Break(), CKACallback("init"))
    assert run.state.finished and not (tmp_path / "cka" / "epoch-002.npz").exists()

    network = Net()
    nn.init.zeros_(network[6].weight)
    network[6].requires_grad_(False)
    with pytest.warns(UserWarning, match="same output for every sample, so NaN in the matrix: '6' .model A"):
        _, run = fit(tmp_path / "dead", CKACallback("init"), model=Lit(network), epochs=1)
    assert np.isnan(stored(tmp_path / "dead", 0)["matrix"][-1]).all()
    assert "cka/init/6" not in run.callback_metrics and run.callback_metrics["cka/init/mean"] > 0


def test_batches_too_small(tmp_path):
    class Small(Data):
        def __init__(self):
            super().__init__(6, 3)

    with pytest.warns(UserWarning, match="no batch with 4 or more samples"):
        trainer(tmp_path, CKACallback("self"), epochs=1).fit(Lit(), datamodule=Small())


def test_a_lightning_module_compiled_as_a_whole_is_left_alone(tmp_path):
    with pytest.warns(UserWarning, match="compiled as a whole; compile the network"):
        _, run = fit(tmp_path, CKACallback(), model=torch.compile(Lit(), backend="eager"), epochs=1)
    assert run.state.finished


def test_it_is_parsed_from_the_command_line():
    from jsonargparse import ArgumentParser

    parser = ArgumentParser()
    parser.add_subclass_arguments(Callback, "callback")
    config = parser.parse_args(
        ["--callback=lightning_hpc.cka.CKACallback", "--callback.reference=init", "--callback.layers=[a,b]"]
    )
    callback = parser.instantiate_classes(config).callback
    assert isinstance(callback, CKACallback) and callback.layers == ["a", "b"] and callback.reference == "init"


def test_what_can_not_be_copied_switches_it_off(tmp_path):
    class Locked(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.lock = nn.Linear(4, 1), threading.Lock()

    class Lazy(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.LazyLinear(1)

    for network, reason in ((Locked(), "Locked can't be copied: cannot pickle"), (Lazy(), "Lazy has lazy layers")):
        trainer = Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path, enable_checkpointing=False)
        for callback, hook in (
            (CKACallback(), CKACallback.on_train_start),
            (CKACallback(reference=network), CKACallback.on_fit_start),
        ):
            with pytest.warns(UserWarning, match=f"CKA is off for the rest of this run: {reason}"):
                hook(callback, trainer, network)
            assert callback._off


# ---- several validations in an epoch, and what is refused before the run begins


def test_each_of_several_validations_in_an_epoch_has_its_map(tmp_path):
    fit(tmp_path, CKACallback("self"), epochs=2, val_check_interval=0.5)
    steps = [(epoch, 4 * epoch + step) for epoch in (0, 1) for step in (2, 4)]
    names = sorted(path.stem for path in (tmp_path / "cka").glob("*.npz"))
    assert names == [f"epoch-{epoch + 1:03d}-step-{step:08d}" for epoch, step in steps]
    data = np.load(tmp_path / "cka" / f"{names[0]}.npz")
    assert str(data["row_label"]) == "model, epoch 1, step 2"


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"layers": ["3", "hed"]}, "no layer of Net matches 'hed'"),
        ({"reference_layers": ["hed"]}, "no layer of Net matches 'hed'"),
        ({"module": "net"}, "Lit has no module 'net'"),
        ({"reference": "ema"}, "needs a weight-averaging callback"),
        ({"reference": "there/is/none.ckpt"}, "no checkpoint there/is/none.ckpt"),
    ],
)
def test_what_can_not_work_is_known_before_training(tmp_path, settings, message):
    callback = CKACallback(**settings)
    with pytest.raises(CKAError, match=message):
        callback.prepare(trainer(tmp_path, callback), Lit())
