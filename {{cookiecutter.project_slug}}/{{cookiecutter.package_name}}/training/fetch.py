"""`python Train.py fetch`: the data, downloaded where there is internet, and kept from being purged."""

import sys
from pathlib import Path

from ..datasets.download import DownloadError, touch
from ..runs.request import Request
from ..runs.settings import read
from .cli import CLI, data_section, make_data
from .logs import quiet_lightning


def fetch(wanted: Request, root: Path) -> int:
    """Download and prepare the data, and set the files' times to now; returns the exit code.

    For the login nodes of clusters: compute nodes have no internet, and scratch folders are purged of old files.

    Args:
        wanted: the settings of a run.
        root: the project's folder, whose configs/ know the cluster.
    """
    quiet_lightning()
    CLI(wanted)  # finds wrong settings
    data = make_data(data_section(wanted))
    try:
        data.prepare_data()
    except DownloadError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    touch(Path(getattr(data, "data_dir", "data")))
    days = purge_days(root)
    again = f"; files on scratch are purged after {days} days: run this again before that" if days else ""
    print(f"the data of {type(data).__name__} are ready{again}")
    return 0


def purge_days(root: Path) -> int | None:
    """How long files stay on the scratch of the cluster that configs/slurm.yaml names; None if it says nothing."""
    request = root / "configs" / "slurm.yaml"
    cluster = read(request).get("cluster") if request.exists() else None
    preset = root / "configs" / "clusters" / f"{cluster}.yaml"
    return read(preset).get("purge_days") if preset.exists() else None
