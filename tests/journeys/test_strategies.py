"""Settings of the Trainer that are classes: each is named by its path, made, and handed to the Trainer.

Sharded strategies need GPUs. Here they are only constructed, on a machine that is told that it has two: mocked are what
torch says about CUDA, and the package deepspeed. Nothing is trained with them.
"""

import logging
import sys
from types import ModuleType, SimpleNamespace

import pytest

OVERLAYS = {
    "trainer/gpu.yaml": "SingleDeviceStrategy",
    "trainer/ddp.yaml": "DDPStrategy",
    "trainer/fsdp.yaml": "FSDPStrategy",
    "trainer/deepspeed.yaml": "DeepSpeedStrategy",
}


@pytest.fixture
def two_gpus(monkeypatch):
    """Lets torch say that there are two GPUs."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)


@pytest.fixture
def with_deepspeed(monkeypatch):
    """Lets Lightning find a package deepspeed, of which it uses no more than the logger while it makes a strategy."""
    from lightning.pytorch.strategies import deepspeed

    package = ModuleType("deepspeed")
    package.utils = SimpleNamespace(logging=SimpleNamespace(logger=logging.getLogger("deepspeed")))
    monkeypatch.setitem(sys.modules, "deepspeed", package)
    monkeypatch.setattr(deepspeed, "_DEEPSPEED_AVAILABLE", True)
    monkeypatch.setattr(deepspeed, "_DEEPSPEED_GREATER_EQUAL_0_16", True)


@pytest.fixture
def constructed(project, tmp_path, monkeypatch):
    """Makes the Trainer of a command line of `fit`, and returns it."""
    from lightning_hpc.runs.run import read_command_line
    from lightning_hpc.settings.parser import CLI
    from lightning_hpc.training.trainer import make

    monkeypatch.chdir(tmp_path)

    def construct(*arguments):
        run = read_command_line("fit", ["--trainer.logger=false", *arguments], project)
        cli = CLI("fit", run.settings)
        make(cli, run)
        return cli.trainer

    return construct


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlays_for_gpus_give_their_strategy(two_gpus, with_deepspeed, constructed, overlay):
    trainer = constructed(f"--config={overlay}")
    assert type(trainer.strategy).__name__ == OVERLAYS[overlay] and trainer.precision == "bf16-mixed"
    assert type(trainer.accelerator).__name__ == "CUDAAccelerator"
    assert type(trainer.strategy.checkpoint_io).__name__ == "AtomicCheckpointIO"


@pytest.mark.parametrize(
    "name", ["ddp", "DDPStrategy", "lightning.pytorch.strategies.DDPStrategy"], ids=["word", "class", "path"]
)
def test_a_strategy_without_settings_of_its_own(constructed, name):
    trainer = constructed(f"--trainer.strategy={name}", "--trainer.accelerator=cpu", "--trainer.devices=2")
    assert type(trainer.strategy).__name__ == "DDPStrategy" and trainer.world_size == 2


def test_a_strategy_with_settings(constructed, tmp_path):
    file = tmp_path / "ddp.yaml"
    file.write_text(
        "trainer:\n  strategy:\n    class_path: lightning.pytorch.strategies.DDPStrategy\n"
        "    init_args:\n      find_unused_parameters: true\n"
    )
    trainer = constructed(f"--config={file}", "--trainer.accelerator=cpu", "--trainer.devices=2")
    assert trainer.strategy._ddp_kwargs["find_unused_parameters"] is True


def test_fsdp_with_settings(two_gpus, constructed):
    trainer = constructed(
        "--config=trainer/fsdp.yaml", "--trainer.strategy=FSDPStrategy", "--trainer.strategy.state_dict_type=sharded",
        "--trainer.strategy.cpu_offload=true",
    )  # fmt: skip
    assert trainer.strategy._state_dict_type == "sharded" and trainer.strategy.cpu_offload.offload_params


def test_deepspeed_with_settings(two_gpus, with_deepspeed, constructed):
    trainer = constructed(
        "--config=trainer/deepspeed.yaml", "--trainer.strategy=DeepSpeedStrategy", "--trainer.strategy.stage=3",
        "--trainer.strategy.offload_optimizer=true",
    )  # fmt: skip
    assert trainer.strategy.config["zero_optimization"]["stage"] == 3


PLUGINS = {
    "an environment": "lightning.pytorch.plugins.environments.LightningEnvironment",
    "a precision": "lightning.pytorch.plugins.precision.DoublePrecision",
    "synchronised batch norm": "lightning.pytorch.plugins.TorchSyncBatchNorm",
}


@pytest.mark.parametrize("kind", PLUGINS)
def test_plugins_are_made(constructed, kind):
    trainer = constructed(f"--trainer.plugins+={PLUGINS[kind]}", "--trainer.accelerator=cpu")
    connector, name = trainer._accelerator_connector, PLUGINS[kind].rpartition(".")[2]
    used = (
        trainer.strategy.cluster_environment if hasattr(trainer.strategy, "cluster_environment") else None,
        connector.cluster_environment, trainer.precision_plugin, trainer.strategy.checkpoint_io, connector._layer_sync,
    )  # fmt: skip
    assert name in [type(plugin).__name__ for plugin in used]


def test_a_plugin_that_writes_checkpoints_is_refused(train, capsys):
    run = train("fit", "--trainer.plugins=[lightning.pytorch.plugins.io.AsyncCheckpointIO]")
    assert run.code == 2 and run.folder is None
    assert "AsyncCheckpointIO writes checkpoints, which the run itself does: leave it out" in capsys.readouterr().err


@pytest.mark.parametrize("profiler", ["simple", "SimpleProfiler", "lightning.pytorch.profilers.AdvancedProfiler"])
def test_a_profiler_by_word_and_by_class(constructed, profiler):
    trainer = constructed(f"--trainer.profiler={profiler}")
    assert profiler.lower() in type(trainer.profiler).__name__.lower() or profiler.endswith(
        type(trainer.profiler).__name__
    )


def test_a_profiler_with_settings_writes_into_the_folder_of_the_run(train):
    run = train("fit", "--trainer.profiler=SimpleProfiler", "--trainer.profiler.filename=profile")
    assert run.code == 0 and "run_training_epoch" in (run.folder / "fit-profile.txt").read_text()


def test_a_logger_alone_and_by_its_class(train):
    run = train("fit", "--trainer.logger=CSVLogger", "--trainer.logger.save_dir=csv")
    assert run.code == 0 and list((run.folder / "csv").glob("**/metrics.csv"))


def test_an_accelerator_by_its_class(constructed):
    trainer = constructed("--trainer.accelerator=lightning.pytorch.accelerators.CPUAccelerator")
    assert type(trainer.accelerator).__name__ == "CPUAccelerator"
