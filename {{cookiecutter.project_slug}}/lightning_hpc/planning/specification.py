"""From a specification to overlays: a grid, a list, random trials, a W&B sweep file, folds, or all of them at once.

    name: study                         # the experiment: folder runs/study
    configs: [trainer/gpu.yaml]         # files laid over configs/base.yaml
    parameters:                         # a grid; a key is what one types after `--` on Train.py's command line
      LIST_OF_MODELS:                   # any key that starts with LIST: grids of their own, one after the other
        - {model.network: [MLP, ConvNet], model.network.dropout: [0.1]}
        - {model.network: [ConvNet], model.network.dropout: [0.2, 0.5]}
      model.optimizer.lr: {logspace: {start: -4, stop: -2, num: 3} }
      trial: {repeat: 2}                # every run twice, with seeds 0 and 1
    folds: 5                            # every run five times, once for each fold

Each part of a specification becomes an axis: a list of overlays (short key → value). The runs are the product of all
axes; the first axis changes slowest.
"""

import inspect
import itertools
import math
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..runs.identity import fingerprint
from ..settings.errors import SettingsError, did_you_mean
from ..settings.flat import Flat, flatten
from ..settings.yaml_files import read_yaml
from . import space

# The keys of a specification, and the type of each value.
TYPES = dict(
    name=str, configs=list, parameters=dict, search_space=list, space=dict, trials=int, seed=int, folds=int,
    resources=dict, codeversion=str | int,
)  # fmt: skip

TYPE_NAMES = {
    dict: "a mapping", list: "a list", int: "a whole number", str: "text", float: "a number", type(None): "nothing",
    str | int: "text in quotes",
}  # fmt: skip

# A list longer than this is a mistake, such as a range over 10^9; it is found before memory is full.
MOST_RUNS = 100_000

Axis = tuple[str, list[Flat]]


def read_specification(path: Path) -> dict[str, Any]:
    """Read a YAML file: a job specification, or a W&B sweep file, which is known by its `method`.

    Raises:
        SettingsError: it can't be read, is no YAML, or has keys that nothing reads.
    """
    specification = read_yaml(path)
    if "method" in specification:
        return specification  # its schema is W&B's; planning/space.py checks its parameters

    try:
        check_specification(specification)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None

    return specification


def check_specification(specification: Mapping[str, Any]) -> None:
    """Check a job specification's keys and the types of their values.

    Raises:
        SettingsError: the first that is wrong.
    """
    for key, value in specification.items():
        if key not in TYPES:
            near = did_you_mean(str(key), TYPES)
            raise SettingsError(f"unknown key {key}{near}; settings of the runs go under `parameters:`")

        # Python counts True and False as whole numbers.
        right_type = isinstance(value, TYPES[key]) and not isinstance(value, bool)
        if value is not None and not right_type:
            raise SettingsError(f"{key} must be {TYPE_NAMES[TYPES[key]]}, got {value!r}")

    if ("space" in specification) != ("trials" in specification):
        raise SettingsError("space and trials belong together: trials is how many runs to draw from the space")

    folds = specification.get("folds")
    if folds is not None and folds < 2:
        raise SettingsError(f"folds must be at least 2, got {folds}")


def read_axes(specification: Mapping[str, Any]) -> list[Axis]:
    """The axes of a specification, slowest first: lists of overlays, random trials, LIST grids, plain keys, folds.

    Raises:
        SettingsError: a part of the specification has no meaning; the message names it.
    """
    if "method" in specification:
        return [read_sweep_axis(specification)]

    axes: list[Axis] = []

    if specification.get("search_space"):
        overlays = [flatten(checked_mapping(entry, "search_space")) for entry in specification["search_space"]]
        axes.append(("search_space", overlays))

    if specification.get("space"):
        seed = specification.get("seed", 0)
        axes.append(("trials", random_trials(specification["space"], specification["trials"], seed)))

    axes += read_grid(specification.get("parameters") or {}, "parameters")

    if specification.get("folds"):
        folds = specification["folds"]
        common = {"data.mode": "cross-validation", "data.folds": folds}
        axes.append(("folds", [{**common, "data.fold": fold} for fold in range(folds)]))

    return axes


def read_sweep_axis(sweep: Mapping[str, Any]) -> Axis:
    """The runs of a W&B sweep file of method grid, or of method random with a run_cap."""
    method = sweep["method"]
    parameters = sweep.get("parameters") or {}
    space.read_parameters(parameters)  # a mistake in them is the first thing to say, whatever the method

    if method == "grid":
        return "grid", space.grid(parameters)

    if method == "random":
        if not isinstance(sweep.get("run_cap"), int):
            raise SettingsError("a random sweep has no end: set run_cap, the number of runs")
        return "trials", random_trials(parameters, sweep["run_cap"], sweep.get("seed", 0))

    raise SettingsError(
        f"method {method} chooses each run by the results of earlier ones and can't be planned: "
        "use CreateSweep.py, or method grid or random"
    )


def read_grid(parameters: Mapping[str, Any], where: str) -> list[Axis]:
    """The axes of a grid: those of LIST keys first, so slowest, then one for each plain key."""
    lists: list[Axis] = []
    plain: list[Axis] = []

    for key, entry in parameters.items():
        if not isinstance(key, str):
            raise SettingsError(f"{where}: a key must be text, got {key!r}")

        if key.startswith("LIST"):
            lists.append((key, read_list_of_grids(entry, f"{where}.{key}")))
        else:
            values = read_values(entry, f"{where}.{key}")
            plain.append((key, [flatten({key: value}) for value in values]))

    return lists + plain


def read_list_of_grids(grids: Any, where: str) -> list[Flat]:
    """The runs of several grids, one grid after the other. A grid may hold lists of grids itself."""
    if not (isinstance(grids, list) and grids):
        kind = TYPE_NAMES.get(type(grids), f"a {type(grids).__name__}")
        raise SettingsError(f"{where} must be a list of grids, got {kind}")

    overlays: list[Flat] = []
    for number, grid in enumerate(grids):
        axes = read_grid(checked_mapping(grid, where), f"{where}[{number}]")
        overlays += product(axes)

    return overlays


def checked_mapping(value: Any, where: str) -> Mapping[str, Any]:
    """The value itself, once it is known to be a mapping."""
    if not isinstance(value, Mapping):
        raise SettingsError(f"{where} must be a list of mappings from keys to values, found {value!r} in it")
    return value


def read_values(entry: Any, where: str) -> list[Any]:
    """The values of one axis: those of a list, generated ones, or anything else as the only value."""
    if isinstance(entry, list):
        if not entry:
            raise SettingsError(f"{where} has no values, so there would be no runs")
        return entry

    if isinstance(entry, Mapping) and len(entry) == 1:
        name, arguments = next(iter(entry.items()))
        if name in GENERATORS:
            return generate(name, arguments, where)

    return [entry]


def generate(name: str, arguments: Any, where: str) -> list[Any]:
    """The values of one axis from one of GENERATORS: `{linspace: {start: 0, stop: 1, num: 5} }`, `{repeat: 3}`."""
    arguments = {"times": arguments} if name == "repeat" else checked_mapping(arguments, where)

    for argument, value in arguments.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise SettingsError(f"{where}: {name}'s {argument} must be a number, got {value!r}")

        how_many = argument in ("num", "times")
        if how_many and not (isinstance(value, int) and 1 <= value <= MOST_RUNS):
            raise SettingsError(
                f"{where}: {name}'s {argument} must be a whole number from 1 to {MOST_RUNS:,}, got {value}"
            )

    try:
        inspect.signature(GENERATORS[name]).bind(**arguments)  # a TypeError names what is missing or unknown
        values = GENERATORS[name](**arguments)
    except (TypeError, ValueError, OverflowError, ZeroDivisionError) as error:
        raise SettingsError(f"{where}: {name}: {error}") from None

    if not values:
        raise SettingsError(f"{where} has no values: the range is empty")
    return values


def linspace(start: float, stop: float, num: int) -> list[float]:
    """`num` numbers from start to stop, both included, evenly spaced."""
    steps = max(num - 1, 1)
    return [without_noise(start + (stop - start) * i / steps) for i in range(num)]


def logspace(start: float, stop: float, num: int, base: float = 10) -> list[float]:
    """`num` numbers from base**start to base**stop, both included, evenly spaced on a logarithmic scale."""
    return [without_noise(float(base) ** exponent) for exponent in linspace(start, stop, num)]


def arange(start: float, stop: float, step: float = 1) -> list[float]:
    """start, start + step, … as long as it is before stop, like Python's range; fractions are allowed."""
    if step == 0:
        raise ValueError("step must not be 0")

    count = max(0, math.ceil(without_noise((stop - start) / step)))
    if count > MOST_RUNS:
        raise ValueError(f"{count:,} values are too many")

    if all(isinstance(number, int) for number in (start, stop, step)):
        return [start + i * step for i in range(count)]
    return [without_noise(start + i * step) for i in range(count)]


def without_noise(number: float) -> float:
    """A number to 12 digits: 0.3 and not 0.30000000000000004."""
    return float(f"{number:.12g}")


# `repeat` is for the key `trial`, whose values 0, 1, … are the seeds of the repetitions.
GENERATORS = {"linspace": linspace, "logspace": logspace, "range": arange, "repeat": lambda times: list(range(times))}


def count_combinations(axes: list[Axis]) -> int:
    """How many runs the axes make, repetitions included; 1 if there are no axes."""
    return math.prod(len(choices) for _, choices in axes)


def product(axes: list[Axis]) -> Iterator[Flat]:
    """Every combination, the last axis fastest. Earlier axes win over later ones: bundles override plain keys."""
    total = count_combinations(axes)
    if total > MOST_RUNS:
        raise SettingsError(f"the specification makes {total:,} runs; at most {MOST_RUNS:,} can be planned at once")

    for combination in itertools.product(*(choices for _, choices in axes)):
        overlay: Flat = {}
        for bundle in combination:
            # Keys stay in the order of the axes; the first value of a key stays, too.
            overlay = {**overlay, **bundle, **overlay}
        yield overlay


def expand(axes: list[Axis]) -> list[Flat]:
    """Every combination of the axes as an overlay, in order, without those that repeat an earlier one."""
    overlays: dict[str, Flat] = {}
    for overlay in product(axes):
        overlays.setdefault(fingerprint(overlay), overlay)
    return list(overlays.values())


def random_trials(parameters: Mapping[str, Any], count: int, seed: int) -> list[Flat]:
    """Draw `count` different points of a space (see planning/space.py) at random; fewer if it has no more.

    With the same seed, a larger count keeps the points of a smaller one and adds to them.
    """
    if count < 1:
        raise SettingsError(f"trials must be at least 1, got {count}")
    if count > MOST_RUNS:
        raise SettingsError(f"trials: at most {MOST_RUNS:,} runs can be planned at once, got {count:,}")
    space.read_parameters(parameters)

    generator = random.Random(seed)
    overlays: dict[str, Flat] = {}

    # Points repeat. With so many draws, a space of exactly `count` points is found whole.
    for _ in range(20 * count + 1000):
        if len(overlays) == count:
            break
        overlay = space.sample(parameters, generator)
        overlays.setdefault(fingerprint(overlay), overlay)

    return list(overlays.values())
