"""From a request to overlays: a grid, a list, random trials, a W&B sweep file, folds, or all of them at once.

    name: study                         # the experiment: folder runs/study
    configs: [trainer/gpu.yaml]         # files laid over configs/base.yaml
    parameters:                         # a grid; a key is what one types after `--` on Train.py's command line
      LIST_OF_MODELS:                   # any key that starts with LIST: grids of their own, one after the other
        - {model.network: [MLP, ConvNet], model.network.dropout: [0.1]}
        - {model.network: [ConvNet], model.network.dropout: [0.2, 0.5]}
      model.optimizer.lr: {logspace: {start: -4, stop: -2, num: 3} }
      trial: {repeat: 2}                # every run twice, with seeds 0 and 1
    folds: 5                            # every run five times, once for each fold

Whatever a request is made of becomes an axis: a list of overlays (short key → value). The runs are the product of all
axes, the first axis slowest.
"""

import itertools
import json
import random
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from . import space
from .identity import canonical
from .settings import Flat, SettingsError, did_you_mean, flatten, read_yaml

SPEC_TYPES = dict(
    name=str, configs=list, parameters=dict, search_space=list, space=dict, trials=int, seed=int, folds=int,
    resources=dict, codeversion=object,
)  # fmt: skip
# A list longer than this is a mistake in the request, such as a range over 10^9; found before memory is full.
MOST_RUNS = 100_000

Axis = tuple[str, list[Flat]]


def read_spec(path: Path) -> dict[str, Any]:
    """A request from its YAML file: a job specification, or a W&B sweep file.

    Raises:
        SettingsError: it can't be read, is no YAML, or has keys that nothing reads.
    """
    spec = read_yaml(path)
    try:
        return spec if "method" in spec else checked_spec(spec)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None


def checked_spec(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The request itself, once its keys and their types are known to be right."""
    for key, value in spec.items():
        if key not in SPEC_TYPES:
            near = did_you_mean(str(key), SPEC_TYPES)
            raise SettingsError(f"unknown key {key}{near}; settings of the runs go under `parameters:`")
        if value is not None and (not isinstance(value, SPEC_TYPES[key]) or isinstance(value, bool)):
            raise SettingsError(f"{key} must be {KINDS[SPEC_TYPES[key]]}, got {value!r}")
    if ("space" in spec) != ("trials" in spec):
        raise SettingsError("space and trials belong together: trials is how many runs to draw from the space")
    if spec.get("folds") is not None and spec["folds"] < 2:
        raise SettingsError(f"folds must be at least 2, got {spec['folds']}")
    return dict(spec)


KINDS = {
    dict: "a mapping", list: "a list", int: "a whole number", str: "text", float: "a number", type(None): "nothing",
}  # fmt: skip


def kind(value: Any) -> str:
    """What a value is, in words."""
    return KINDS.get(type(value), f"a {type(value).__name__}")


def expand(spec: Mapping[str, Any]) -> list[Flat]:
    """The overlays that a request asks for, in order, none twice.

    Raises:
        SettingsError: a part of the request has no meaning; the message names it.
    """
    return distinct(product(axes(spec)))


def axes(spec: Mapping[str, Any]) -> list[Axis]:
    """A request as axes, the slowest first: W&B's space, lists of overlays, LIST grids, plain parameters, folds."""
    if "method" in spec:
        return [sweep_axis(spec)]
    found: list[Axis] = []
    if spec.get("search_space"):
        found.append(("search_space", [flatten(one(each, "search_space")) for each in spec["search_space"]]))
    if spec.get("space"):
        found.append(("trials", trials(spec["space"], spec["trials"], spec.get("seed", 0))))
    found += grid_axes(spec.get("parameters") or {}, "parameters")
    if spec.get("folds"):
        modes = {"data.mode": "cross-validation", "data.folds": spec["folds"]}
        found.append(("folds", [{**modes, "data.fold": fold} for fold in range(spec["folds"])]))
    return found


def grid_axes(parameters: Mapping[str, Any], where: str) -> list[Axis]:
    """A grid's axes: those of LIST keys first, so slowest, then one for each plain key."""
    lists, plain = [], []
    for key, value in parameters.items():
        if not isinstance(key, str):
            raise SettingsError(f"{where}: a key must be text, got {key!r}")
        if key.startswith("LIST"):
            if not (isinstance(value, list) and value):
                raise SettingsError(f"{where}.{key} must be a list of grids, got {kind(value)}")
            bundles = [
                bundle
                for number, grid in enumerate(value)
                for bundle in product(grid_axes(one(grid, f"{where}.{key}"), f"{where}.{key}[{number}]"))
            ]
            lists.append((key, bundles))
        else:
            plain.append((key, [flatten({key: each}) for each in values(value, f"{where}.{key}")]))
    return lists + plain


def one(value: Any, where: str) -> Mapping[str, Any]:
    """A member of a list of mappings, checked to be one."""
    if not isinstance(value, Mapping):
        raise SettingsError(f"{where} must be a list of mappings from keys to values, found {value!r} in it")
    return value


def product(axes: list[Axis]) -> Iterator[Flat]:
    """Every combination, the last axis fastest. Earlier axes win over later ones: bundles override plain keys."""
    total = 1
    for _, choices in axes:
        total *= len(choices)
    if total > MOST_RUNS:
        raise SettingsError(f"the request makes {total:,} runs; at most {MOST_RUNS:,} can be planned at once")
    for combination in itertools.product(*(choices for _, choices in axes)):
        overlay: Flat = {}
        for bundle in combination:
            overlay = {**overlay, **bundle, **overlay}  # in the order of the axes
        yield overlay


def distinct(overlays: Iterable[Flat]) -> list[Flat]:
    """The overlays without those that repeat an earlier one."""
    return list({fingerprint(overlay): overlay for overlay in reversed(list(overlays))}.values())[::-1]


def fingerprint(overlay: Flat) -> str:
    """A text that is the same for overlays that mean the same."""
    return json.dumps(canonical(overlay), sort_keys=True, default=str)


def values(given: Any, where: str) -> list[Any]:
    """The values of one axis: a list as it is, a generated one, anything else as a list of one."""
    if isinstance(given, list):
        if not given:
            raise SettingsError(f"{where} has no values, so there would be no runs")
        return given
    if isinstance(given, Mapping) and len(given) == 1:
        (name, arguments), *_ = given.items()
        if name in GENERATED:
            return generate(name, arguments, where)
    return [given]


def linspace(start: float, stop: float, num: int) -> list[float]:
    """`num` numbers from start to stop, both included, evenly spaced."""
    return [rounded(start + (stop - start) * i / max(num - 1, 1)) for i in range(num)]


def logspace(start: float, stop: float, num: int, base: float = 10) -> list[float]:
    """`num` numbers from base**start to base**stop, both included, evenly spaced on a logarithmic scale."""
    return [rounded(float(base) ** exponent) for exponent in linspace(start, stop, num)]


def numbers(start: float, stop: float, step: float = 1) -> list[float]:
    """start, start + step, … as long as it is before stop, like Python's range; fractions are allowed."""
    if step == 0:
        raise ValueError("step must not be 0")
    count = max(0, -int(-(rounded((stop - start) / step)) // 1))
    if count > MOST_RUNS:
        raise ValueError(f"{count:,} values are too many")
    whole = all(isinstance(number, int) for number in (start, stop, step))
    return [start + i * step if whole else rounded(start + i * step) for i in range(count)]


def repeat(times: int) -> list[int]:
    """0, 1, …: for `trial`, whose number is the seed: so many repetitions of every run."""
    return list(range(times))


GENERATED = {"linspace": linspace, "logspace": logspace, "range": numbers, "repeat": repeat}


def generate(name: str, arguments: Any, where: str) -> list[Any]:
    """The values of an axis given by one of GENERATED: `{linspace: {start: 0, stop: 1, num: 5} }`, `{repeat: 3}`."""
    try:
        arguments = {"times": arguments} if name == "repeat" else one(arguments, where)
        if wrong := [k for k, v in arguments.items() if isinstance(v, bool) or not isinstance(v, int | float)]:
            raise SettingsError(f"{where}: {name}'s {wrong[0]} must be a number, got {arguments[wrong[0]]!r}")
        for count in {"num", "times"} & set(arguments):
            if not (isinstance(arguments[count], int) and 1 <= arguments[count] <= MOST_RUNS):
                wanted = f"a whole number from 1 to {MOST_RUNS:,}"
                raise SettingsError(f"{where}: {name}'s {count} must be {wanted}, got {arguments[count]}")
        found = GENERATED[name](**arguments)
    except (TypeError, ValueError, OverflowError, ZeroDivisionError) as error:
        raise SettingsError(f"{where}: {str(error).replace('numbers()', 'range')}") from None
    if not found:
        raise SettingsError(f"{where} has no values: the range is empty")
    return found


def rounded(number: float) -> float:
    """A number without the last digits' noise: 0.3 and not 0.30000000000000004."""
    return float(f"{number:.12g}")


def trials(parameters: Mapping[str, Any], count: int, seed: int) -> list[Flat]:
    """`count` different random draws from a space; fewer if it has no more. More trials keep the first ones.

    Args:
        parameters: the space, in the schema of W&B's sweep files; see runs/space.py.
    """
    if count < 1:
        raise SettingsError(f"trials must be at least 1, got {count}")
    if count > MOST_RUNS:
        raise SettingsError(f"trials: at most {MOST_RUNS:,} runs can be planned at once, got {count:,}")
    space.check(parameters)
    generator, found = random.Random(seed), {}
    for _ in range(20 * count + 1000):  # so many that a space with exactly `count` points is found whole
        if len(found) == count:
            break
        overlay = space.sample(parameters, generator)
        found.setdefault(fingerprint(overlay), overlay)
    return list(found.values())


def sweep_axis(sweep: Mapping[str, Any]) -> Axis:
    """The runs of a W&B sweep file of method grid, or of method random with a run_cap."""
    method, parameters = sweep["method"], sweep.get("parameters") or {}
    space.check(parameters)
    if method == "grid":
        return "grid", space.grid(parameters)
    if method == "random":
        if not isinstance(sweep.get("run_cap"), int):
            raise SettingsError("a random sweep has no end: set run_cap, the number of runs")
        return "trials", trials(parameters, sweep["run_cap"], sweep.get("seed", 0))
    raise SettingsError(
        f"method {method} chooses each run by the results of earlier ones and can't be planned: "
        "use CreateSweep.py, or method grid or random"
    )
