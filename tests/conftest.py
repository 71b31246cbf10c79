"""What every test of the template shares.

`package` is the generated package where it stands in the template: inside it no file holds a template marker, so the
modules can be imported, linted and tested without generating anything. The folder's real name is a Jinja expression,
which Python can't import; a symlink called `package` in a temporary folder can be, here and in subprocesses.
"""

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEMPLATE = ROOT / "{{cookiecutter.project_slug}}"
PACKAGE = TEMPLATE / "{{cookiecutter.package_name}}"

# Compiled files beside the modules would be copied into every project that is generated from this folder.
sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = os.path.join(tempfile.gettempdir(), "template-pycache")

_links = tempfile.mkdtemp(prefix="package-")
atexit.register(shutil.rmtree, _links, ignore_errors=True)
(Path(_links) / "package").symlink_to(PACKAGE)
sys.path.insert(0, _links)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [_links, os.environ.get("PYTHONPATH")]))
for name in [name for name in os.environ if name.startswith(("WANDB_", "SLURM_", "SBATCH_"))]:
    del os.environ[name]  # what the machine has set must not leak into the tests
os.environ["WANDB_MODE"] = "disabled"
