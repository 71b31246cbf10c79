"""Which setting was probably meant: by its meaning first, then by its spelling."""

import difflib
from collections.abc import Iterable

from ..classes import class_settings, import_class
from ..errors import SettingsError
from ..layers import Settings

# What a setting is called elsewhere → its last word here.
SYNONYMS = {
    "learning_rate": "lr", "base_lr": "lr", "eta": "lr",
    "wd": "weight_decay", "decay": "weight_decay",
    "optim": "optimizer", "opt": "optimizer",
    "scheduler": "lr_scheduler", "schedule": "lr_scheduler", "sched": "lr_scheduler",
    "net": "network", "arch": "network", "architecture": "network", "backbone": "network",
    "epochs": "max_epochs", "epoch": "max_epochs", "num_epochs": "max_epochs", "n_epochs": "max_epochs",
    "steps": "max_steps", "num_steps": "max_steps", "iterations": "max_steps", "max_iter": "max_steps",
    "bs": "batch_size", "batch": "batch_size", "batchsize": "batch_size", "train_batch_size": "batch_size",
    "workers": "num_workers", "n_workers": "num_workers", "num_cpus": "num_workers",
    "seed": "seed_everything", "random_seed": "seed_everything", "manual_seed": "seed_everything",
    "gpus": "devices", "num_gpus": "devices", "n_gpu": "devices", "ngpus": "devices",
    "nodes": "num_nodes", "device": "accelerator",
    "amp": "precision", "fp16": "precision", "bf16": "precision", "mixed_precision": "precision",
    "clip": "gradient_clip_val", "grad_clip": "gradient_clip_val", "max_grad_norm": "gradient_clip_val",
    "clip_grad": "gradient_clip_val", "gradient_clip": "gradient_clip_val",
    "accumulate": "accumulate_grad_batches", "gradient_accumulation_steps": "accumulate_grad_batches",
    "grad_accum": "accumulate_grad_batches", "accum_iter": "accumulate_grad_batches",
    "loggers": "logger", "callback": "callbacks",
    "data_path": "data_dir", "data_root": "data_dir", "dataset_dir": "data_dir", "root": "data_dir",
    "dataset": "data", "datamodule": "data",
    "experiment": "name", "exp_name": "name", "experiment_name": "name", "run_name": "name",
    "output_dir": "runs_dir", "out_dir": "runs_dir", "log_dir": "runs_dir", "save_dir": "runs_dir",
    "pretrained": "init_from", "weights": "init_from", "load_from": "init_from",
    "ckpt": "resume", "checkpoint": "resume", "resume_from": "resume", "resume_from_checkpoint": "resume",
}  # fmt: skip


def near_settings(key: str, owner: str, settings: Settings, known: Iterable[str]) -> str:
    """' (did you mean A or B?)' for the settings that an unknown one was probably meant for, or '' if none is near.

    Args:
        key: the unknown setting.
        owner: the key of the class that does not have it; '' for Train.py itself.
        settings: all settings.
        known: the settings of Train.py itself.
    """
    own = settings_of(owner, settings)
    everything = set(known)
    for name in settings.flat:
        everything |= settings_of(name, settings)

    # The same word somewhere else, another word for the same, and at last what looks like it.
    word = last_word(key)
    near = same_word(word, key, everything) or same_word(SYNONYMS.get(word.lower(), ""), key, everything)
    if owner:
        near = near or by_last_word(key, own) or by_last_word(key, everything)
    else:
        near = near or by_spelling(key, everything)
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def settings_of(owner: str, settings: Settings) -> set[str]:
    """The keys of all settings that the class under a key has; none if there is no class."""
    name = settings.flat.get(owner)
    if not (isinstance(name, str) and "." in name):
        return set()
    try:
        return {f"{owner}.{setting}" for setting in class_settings(import_class(name))}
    except (SettingsError, TypeError, ValueError):  # what only looks like a class, or has no arguments
        return set()


def last_word(key: str) -> str:
    """`lr` of `model.optimizer.lr`."""
    return key.rpartition(".")[2]


def same_word(word: str, key: str, choices: Iterable[str]) -> list[str]:
    """The choices that end with a word, whatever its case; at most two, those first that look most like the key."""
    same = [choice for choice in choices if last_word(choice).lower() == word.lower()]
    return sorted(same, key=lambda choice: (unlikeness(choice, key), len(choice), choice))[:2]


def unlikeness(choice: str, key: str) -> int:
    """How many parts of a key are not in a choice."""
    return len(set(key.lower().split(".")[:-1]) - set(choice.lower().split(".")))


def by_spelling(key: str, choices: Iterable[str]) -> list[str]:
    """The choices that are spelled like a key as a whole, or else by their last words; at most two."""
    return difflib.get_close_matches(key, sorted(choices), n=2, cutoff=0.6) or by_last_word(key, choices)


def by_last_word(key: str, choices: Iterable[str]) -> list[str]:
    """The choices whose last word is spelled like that of a key: what is before it is the same in all of a class."""
    words = {last_word(choice): choice for choice in sorted(choices, reverse=True)}
    return [words[word] for word in difflib.get_close_matches(last_word(key), words, n=2, cutoff=0.6)]
