"""`python Train.py fetch`: the data, downloaded where there is internet, and kept from being purged."""

import sys
from pathlib import Path

from ..datasets.download import DownloadError, touch
from ..runs.request import Request
from .cli import CLI, data_section, make_data
from .logs import quiet_lightning


def fetch(wanted: Request) -> int:
    """Download and prepare the data, and set the files' times to now; returns the exit code.

    For the login nodes of clusters: compute nodes have no internet, and scratch folders are purged of old files.
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
    print(f"the data of {type(data).__name__} are ready")
    return 0
