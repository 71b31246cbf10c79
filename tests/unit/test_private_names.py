"""Private names of other packages: the list is complete, and a missing one is told in one line."""

import ast
import re
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger

import lightning_hpc
from lightning_hpc import private_names
from lightning_hpc.settings.errors import SettingsError

PACKAGE = Path(lightning_hpc.__file__).parent
OUR_FILES = [file for file in sorted(PACKAGE.rglob("*.py")) if file.name != "private_names.py"]
PRIVATE = re.compile(r"_[A-Za-z]\w*")  # one underscore; two are Python's own
PUBLIC = {"_exit", "_replace"}  # of os and of named tuples, with documentation


class Names(ast.NodeVisitor):
    """The private names that a file defines, and those that it uses: attributes, imports, keywords, and strings."""

    def __init__(self) -> None:
        self.defined: set[str] = set()
        self.used_on_self: set[str] = set()
        self.used_elsewhere: set[str] = set()
        self.methods: set[str] = set()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.defined.add(node.name)
        arguments = [*node.args.args, *node.args.kwonlyargs]
        if arguments and arguments[0].arg == "self":
            self.methods.add(node.name)
        self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.defined.add(node.name)
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        on_self = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
        if on_self and isinstance(node.ctx, ast.Store):
            self.defined.add(node.attr)
        elif on_self:
            self.used_on_self.add(node.attr)
        else:
            self.used_elsewhere.add(node.attr)
        self.generic_visit(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if not node.level:
            self.used_elsewhere |= {alias.name for alias in node.names}

    def visit_keyword(self, node: ast.keyword) -> None:
        self.used_elsewhere.add(node.arg or "")
        self.generic_visit(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Not the texts between the braces of an f-string, such as the end of a name."""
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                self.visit(part)

    def visit_Call(self, node: ast.Call) -> None:
        """Nor the ends that a text is asked for."""
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("endswith", "removesuffix"):
            self.visit(node.func)
        else:
            self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        """A string may be given to getattr or setattr."""
        if isinstance(node.value, str):
            self.used_elsewhere.add(node.value)


def private(names: set[str]) -> set[str]:
    return {name for name in names if PRIVATE.fullmatch(name)} - PUBLIC


def foreign_names() -> dict[str, set[str]]:
    """Private name of another package → our files that use it."""
    files = {}
    for file in OUR_FILES:
        files[file] = names = Names()
        names.visit(ast.parse(file.read_text(encoding="utf-8")))
    defined = set().union(*(names.defined for names in files.values()))
    used = set().union(*(names.used_on_self | names.used_elsewhere for names in files.values()))

    foreign: dict[str, set[str]] = {}
    for file, names in files.items():
        inherited = private(names.used_on_self) - defined
        overridden = private(names.methods) - used  # nobody here calls it, so a base class must
        for name in private(names.used_elsewhere) | inherited | overridden:
            foreign.setdefault(name, set()).add(str(file.relative_to(PACKAGE)))
    return foreign


def listed() -> Iterator[str]:
    """The private names in the tables: of torch.nn:Module._compiled_call_impl, _compiled_call_impl."""
    tables = [value for name, value in vars(private_names).items() if name.startswith(("IN_", "ON_"))]
    for table in (*tables, private_names.UNCHECKED):
        for path in table:
            yield from private(set(re.split(r"[.:]", path)))


def test_every_private_name_that_is_used_is_listed():
    foreign = foreign_names()
    missing = {name: sorted(files) for name, files in foreign.items() if name not in set(listed())}
    assert not missing, "add these to a table in private_names.py"


def test_no_name_is_listed_that_is_not_used():
    assert set(listed()) <= set(foreign_names()), "take these out of private_names.py"


def test_every_import_of_wandbs_inner_modules_is_listed():
    imports = set()
    for file in OUR_FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("wandb."):
                imports |= {f"{node.module}.{alias.name}" for alias in node.names}
    names = {name.replace(":", ".") for name in private_names.IN_WANDB}
    assert imports
    assert all(any(f"{name}.".startswith(f"{module}.") for name in names) for module in imports)


@pytest.fixture
def trainer(tmp_path):
    return Trainer(accelerator="cpu", logger=CSVLogger(tmp_path), enable_checkpointing=False, enable_progress_bar=False)


def test_all_names_are_there_and_looking_takes_no_time(trainer):
    private_names.check_packages()
    private_names.check_wandb()
    private_names.check_trainer(trainer)
    times = []
    for _ in range(5):
        start = time.process_time()
        private_names.check_trainer(trainer)
        times.append(time.process_time() - start)
    assert min(times) < 0.005


def one_line(error) -> str:
    line = str(error.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize("name", private_names.ON_TRAINER)
def test_a_name_that_the_trainer_lacks_is_told(name):
    """A Trainer of another version: all names are there but one."""
    fake = SimpleNamespace(loggers=[])
    for path in private_names.ON_TRAINER:
        thing = fake
        for attribute in path.split("."):
            if path == name and attribute == path.split(".")[-1]:
                break
            if not hasattr(thing, attribute):
                setattr(thing, attribute, SimpleNamespace())
            thing = getattr(thing, attribute)
    with pytest.raises(SettingsError) as error:
        private_names.check_trainer(fake)
    line = one_line(error)
    assert re.fullmatch(
        rf"lightning [\d.]+ has no SimpleNamespace\.{re.escape(name)}, which is not public and needed here; install a "
        r"version that has it: pip install 'lightning>=2\.6,<2\.7'",
        line,
    )


def test_a_name_that_a_metric_lacks_is_told(trainer, monkeypatch):
    import torchmetrics

    class Other(torchmetrics.MeanMetric):
        def __init__(self):
            super().__init__()
            del self._computed

    monkeypatch.setattr(torchmetrics, "MeanMetric", Other)
    with pytest.raises(
        SettingsError, match=r"^torchmetrics [\d.]+ has no Other\._computed, .* 'torchmetrics=="
    ) as error:
        private_names.check_trainer(trainer)
    one_line(error)


@pytest.mark.parametrize(
    "check, module, name",
    [
        (private_names.check_packages, "lightning.pytorch.trainer.connectors.logger_connector.result", "_Metadata"),
        (private_names.check_wandb, "wandb.sdk.lib.wbauth", "read_netrc_auth"),
    ],
)
def test_a_name_that_a_package_lacks_is_told(check, module, name, monkeypatch):
    monkeypatch.delattr(f"{module}.{name}")
    package = module.partition(".")[0]
    with pytest.raises(SettingsError, match=rf"^{package} [\d.]+ has no {module}\.{name}, .* '{package}[>=]=") as error:
        check()
    one_line(error)


def test_a_package_that_is_not_there_is_told(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "wandb.sdk.lib.wbauth", None)
    with pytest.raises(SettingsError, match=r"^wandb [\d.]+ has no wandb\.sdk\.lib\.wbauth\.read_netrc_auth, "):
        private_names.check_wandb()


def test_each_package_has_a_version_that_works():
    for table in (private_names.IN_PACKAGES, private_names.IN_WANDB):
        for name in table:
            assert re.split(r"[.:]", name)[0] in private_names.WORKS_WITH
