"""Makes the template's code importable where it stands, as tests/conftest.py does."""

import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEMPLATE = ROOT / "{{cookiecutter.project_slug}}"
PACKAGE = TEMPLATE / "{{cookiecutter.package_name}}"


def use_template(researchers_files: bool = True) -> None:
    """Put `lightning_hpc` on the path of this process and of those that it starts.

    Args:
        researchers_files: `model`, `networks` and `data` too, by these names.
    """
    paths = [str(TEMPLATE), str(PACKAGE)] if researchers_files else [str(TEMPLATE)]
    if paths[0] not in sys.path:
        sys.path[:0] = paths
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [*paths, os.environ.get("PYTHONPATH")]))

    # Compiled files beside the modules would be copied into every project that is generated from this folder.
    sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = os.path.join(tempfile.gettempdir(), "template-pycache")
