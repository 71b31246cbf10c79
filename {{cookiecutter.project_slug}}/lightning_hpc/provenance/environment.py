"""environment.json: what a run was made with. Its settings and its code are kept elsewhere; this is the rest.

It holds a list: one record for each environment that the run had, since a run can resume on another machine.
"""

import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..files import write_atomically

FILE = "environment.json"

# Package folders end like this, and begin with NAME-VERSION.
ENDINGS = (".dist-info", ".egg-info")

# What a record says about one start, and not about what the run was made with.
OF_A_START = ("from_step",)

CPU_INFO = Path("/proc/cpuinfo")


def of_machine() -> dict[str, Any]:
    """Python, the processor, and the versions of all packages that can be imported; torch is not needed."""
    return dict(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        cpu=processor(),
        packages=installed_packages(),
    )


def of_training(device: Any, ranks: int) -> dict[str, Any]:
    """What else of the machine can change a result: the device, its libraries, and how sums are split up.

    Args:
        device: what the model is on, a torch.device.
        ranks: number of processes that train together.
    """
    import torch

    on_gpu = device.type == "cuda"
    return dict(
        device=torch.cuda.get_device_name(device) if on_gpu else device.type,
        cuda=torch.version.cuda if on_gpu else None,
        cudnn=torch.backends.cudnn.version() if on_gpu else None,
        vector_instructions=torch.backends.cpu.get_cpu_capability(),
        threads=torch.get_num_threads(),
        ranks=ranks,
        deterministic=torch.are_deterministic_algorithms_enabled(),
        matmul_precision=torch.get_float32_matmul_precision(),
    )


def processor() -> str:
    """The processor's name, as Linux knows it; elsewhere, what Python knows."""
    try:
        lines = CPU_INFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "cpu model"):
            return value.strip()
    return platform.processor() or platform.machine()


def installed_packages() -> dict[str, str]:
    """Name → version of the packages in the folders that Python imports from; of two, the one that is imported.

    Names of folders say it, so that no file is opened: there are hundreds, on file systems that may be slow.
    """
    found: dict[str, str] = {}
    for folder in sys.path:
        for name, version in packages_in(Path(folder or ".")):
            found.setdefault(name, version)
    return dict(sorted(found.items()))


def packages_in(folder: Path) -> Iterator[tuple[str, str]]:
    """Name and version of each package in one folder."""
    try:
        entries = os.listdir(folder)
    except OSError:
        return  # a zip file, or a folder that is not there
    for entry in entries:
        stem, ending = os.path.splitext(entry)
        name, _, version = stem.partition("-")
        if ending in ENDINGS and version:
            yield name.replace("_", "-").lower(), version


def read_environments(folder: Path) -> list[dict[str, Any]]:
    """The records of a run, in the order of its attempts; [] if it has none or they can't be read."""
    try:
        records = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    if not isinstance(records, list):
        return []
    return [record for record in records if isinstance(record, dict)]


def keep_environment(folder: Path, record: Mapping[str, Any], continues: bool) -> None:
    """Add a record to environment.json, unless the last one says the same.

    Args:
        folder: the run's folder.
        record: what this attempt is made with.
        continues: True if the attempt continues an earlier one, whose records stay.

    Raises:
        OSError: it can't be written.
    """
    records = read_environments(folder) if continues else []
    if records and not differences(records[-1], record):
        return
    lines = [json.dumps(one, default=str) for one in (*records, record)]
    write_atomically(folder / FILE, "[\n" + ",\n".join(lines) + "\n]\n", lasting=False)


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What differs between two records: `torch` → ("2.12.0", "2.13.0"). None stands for what is not there.

    Packages and settings are compared one by one; a setting's name begins with `setting `.
    """
    found = {}
    for name in dict.fromkeys((*one, *other)):
        if name in OF_A_START:
            continue
        here, there = one.get(name), other.get(name)
        if isinstance(here, dict) or isinstance(there, dict):
            prefix = "setting " if name == "settings" else ""
            here, there = here or {}, there or {}
            for key in sorted(set(here) | set(there)):
                if here.get(key) != there.get(key):
                    found[f"{prefix}{key}"] = (here.get(key), there.get(key))
        elif here != there:
            found[name] = (here, there)
    return found
