"""The formats of `Train.py export`: what each needs, and how its file is loaded. No torch, so the help is quick."""

import importlib.util
from dataclasses import dataclass

from ..settings.errors import SettingsError


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        ending: of a file's name.
        weights_only: True for weights alone, False for what the model computes.
        packages: what has to be installed to write it.
        how_to_load: Python code, with {file} for the file's name.
    """

    ending: str
    weights_only: bool
    packages: tuple[str, ...]
    how_to_load: str


FORMATS = {
    "onnx": Format(
        ".onnx",
        False,
        ("onnx", "onnxscript"),
        'session = onnxruntime.InferenceSession("{file}"); session.run(None, dict(input=inputs.numpy()))',
    ),
    "torchscript": Format(".torchscript.pt", False, (), 'model = torch.jit.load("{file}"); model(inputs)'),
    "state_dict": Format(".state_dict.pt", True, (), 'model.load_state_dict(torch.load("{file}", weights_only=True))'),
    "safetensors": Format(
        ".safetensors", True, ("safetensors",), 'model.load_state_dict(safetensors.torch.load_file("{file}"))'
    ),
}


def check_installed(name: str) -> None:
    """Raise SettingsError, which says what to install, if a format needs a package that is not there."""
    missing = [package for package in FORMATS[name].packages if not is_installed(package)]
    if missing:
        raise SettingsError(f"--format {name} needs {' and '.join(missing)}: pip install {' '.join(missing)}")


def is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
