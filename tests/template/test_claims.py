"""What the pages claim is compared with what exists: options, errors, pictures, figures, variables, the address.

test_docs.py runs the commands on the pages; here is what can be wrong without a command.
"""

import ast
import json
import re
import shutil
import sys
from pathlib import Path

import ladder
import pytest

ROOT = ladder.ROOT
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md"), *DOCS.glob("benchmarks/*.md"), *DOCS.glob("tutorials/*.md")])
MACHINE_ROOM = ROOT / ladder.PROJECT_FOLDER / "lightning_hpc"
sys.path.insert(0, str(DOCS))

# Options on the pages that are another program's.
OF_OTHERS = {
    "cookiecutter, cruft": {"--no-input", "--checkout", "--version"},
    "pip": {"--no-deps", "--target"},
    "SLURM": {"--array", "--dependency", "--signal", "--kill-on-bad-exit", "--pty", "--overlap", "--wait", "--mem"},
    "TensorBoard": {"--logdir"},
    "Docker": {"--build-arg", "--platform", "--rm", "--scale", "--shm-size", "--stop-timeout", "--load"},
    "Apptainer": {"--bind", "--cleanenv", "--no-home", "--nv"},
    "kubectl, tar": {"--follow", "--from-file", "--selector", "--one-top-level"},
    "Hydra, SEML": {"--multirun", "--filter-states"},
    "Jinja's comments": {"--template"},
}
COMMANDS = {
    "train": ["fit", "crossvalidate", "export", "reproduce", "predict", "fetch"],
    "slurm_train": ["plan", "submit", "status", "retry", "cancel", "debug", "eval", "render", "cluster", "fetch"],
    "report": ["table", "html", "serve", "compare", "cka", "cross-validation", "verify", "rsync"],
    "create_sweep": [""],
    "sweep_agent": [""],
}
# Words of what is not there. A page that needs one says it in another way, or lists it here with its reason.
PROMISES = re.compile(r"\b(coming soon|still to come|not yet|TODO|not implemented|future version)\b")


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def helps(project) -> str:
    """What all commands print with --help."""
    import contextlib
    import io

    from lightning_hpc import entrance

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for door, commands in COMMANDS.items():
            for command in commands:
                with contextlib.suppress(SystemExit):
                    getattr(entrance, door)([*filter(None, [command]), "--help"], project)
    return printed.getvalue()


def test_options_exist(helps):
    """An option with a dot is a setting of a class, which the commands of the pages use."""
    from lightning_hpc.clusters.resources import BY_NAME, KEYS

    known = set(re.findall(r"--[A-Za-z][\w-]*", helps)).union(*OF_OTHERS.values())
    known |= {f"--{name}" for name in [*KEYS, *BY_NAME]} | {"--exclude"}
    for program in [*MACHINE_ROOM.rglob("*.py"), *ROOT.glob("benchmarks/*.py"), *DOCS.glob("*.py")]:
        known |= set(re.findall(r'"(--[\w-]+)[="]', program.read_text(encoding="utf-8")))
    for page in PAGES:
        options = re.findall(r"(?<![\w-])--[A-Za-z][\w-]*(?![\w.-]*\.\w)", text_of(page))
        assert set(options) <= known, f"{page.relative_to(ROOT)}: {set(options) - known}"


def test_nothing_is_promised():
    for page in PAGES:
        assert not (found := PROMISES.search(text_of(page))), f"{page.relative_to(ROOT)}: {found}"


def test_errors_that_are_answered_can_be_said():
    import messages

    said = [message.text for message in messages.messages()]
    assert len(said) > 200
    page = text_of(DOCS / "errors.md")
    headings = re.findall(r"^### (.*)$", page, re.MULTILINE)
    assert len(headings) > 30
    for heading in headings:
        assert any(messages.is_said(heading, text) for text in said), f"no error says: {heading}"
    assert not messages.is_said("there is no … at all", "there is no column …"), "this test could fail"

    # No kind of error for users is left out: but SLURM's answers, and those that make their message themselves.
    kinds = {}
    for file in MACHINE_ROOM.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                kinds[node.name] = {base.id for base in node.bases if isinstance(base, ast.Name)}
    for name, bases in kinds.items():
        assert not bases & messages.FOR_USERS or name in messages.FOR_USERS | {"NoAnswer", "Missing"}, name

    anchors = re.findall(r'<li id="([^"]+)"', messages.listed())
    assert len(set(anchors)) == len(anchors) == len(said)


def test_pages_that_errors_name_are_there(capsys, tmp_path):
    import test_docs

    from lightning_hpc import entrance
    from lightning_hpc.settings.errors import SettingsError

    named = set()
    for file in MACHINE_ROOM.rglob("*.py"):
        named |= set(re.findall(r'\bpage="([^"]+)"', file.read_text(encoding="utf-8")))
    assert len(named) >= 12
    for page, _, heading in (name.partition("#") for name in named):
        assert heading in test_docs.anchors(DOCS / page), f"{page} has no heading {heading}"

    def fails(argv, root):
        raise SettingsError("it is wrong: do this", page="slurm.md#resources")

    assert entrance.enter(fails, [], tmp_path) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["error: it is wrong: do this", "more about it: slurm.md#resources in the documentation"]


def test_pictures_are_made_by_the_script_and_shown():
    import pictures

    made = {name for files in pictures.GROUPS.values() for name in files}
    assert {file.name for file in (DOCS / "pictures").iterdir()} == made
    shown = set()
    for page in PAGES:
        for target in re.findall(r'!\[[^\]]+\]\(([^)]+)\)|<img src="([^"]+)"[^>]* alt="[^"]+"', text_of(page)):
            file = page.parent / "".join(target)
            assert file.is_file(), f"{page.relative_to(ROOT)}: {file}"
            shown.add(file.name)
    assert made == shown


def test_the_picture_of_the_rooms_is_the_table_of_the_imports():
    import diagrams

    sys.path.insert(0, str(ROOT / "tests" / "unit"))
    import test_rooms

    drawing = text_of(DOCS / "pictures" / "rooms.svg")
    titles = re.findall(r"<title>([^<]+)</title>", drawing)
    drawn = {title: set() for title in titles if title in test_rooms.MAY_IMPORT}
    for arrow in titles:
        room, _, other = arrow.partition("&#45;&gt;")
        if other:
            drawn[room].add(other)
    again = "draw it again: .venv/bin/python docs/pictures.py rooms"
    assert diagrams.reachable(drawn) == diagrams.reachable(test_rooms.MAY_IMPORT), again


def test_all_folders_of_tests_are_on_the_ladder():
    page = text_of(DOCS / "template.md").split("## The tests' ladder")[1].split("\n## ")[0]
    there = {file.parent.name for file in ROOT.glob("tests/*/*.py")}
    assert set(re.findall(r"`tests/(\w+)`", page)) == there


def test_figures_have_been_measured():
    import charts

    for page in PAGES:
        for file in re.findall(r"<!-- figures: (\S+) -->", text_of(page)):
            assert (DOCS / "benchmarks" / "data" / file).is_file(), f"{page.name}: {file}"
        for name in re.findall(r"<!-- chart: (\S+) -->", text_of(page)):
            drawn = charts.chart(name)
            assert "\n\n" not in drawn.strip() and drawn.count("<dd") >= 2 and 'class="ours"' in drawn, name
    charted = {text for page in PAGES for text in re.findall(r"<!-- chart: (\S+) -->", text_of(page))}
    assert charted == set(charts.CHARTS)


def test_the_chart_of_kills_counts_what_its_table_counts():
    import charts

    rows = json.loads((DOCS / "benchmarks" / "data" / "kill_chain.json").read_text(encoding="utf-8"))["rows"]
    bars = {bar.label: bar.text for bar in charts.kills(rows)}
    for system, said in rows[-1].items():
        if total := re.fullmatch(r"(\d+) of (\d+) differ", str(said)):
            differ, ways = map(int, total.groups())
            assert bars.pop(system) == f"{ways - differ} of {ways}"
    assert not bars


def test_variables_that_are_read_are_in_the_reference():
    """Those that a launcher sets are not listed; nor are those that the machine room sets for its own processes."""
    launchers = ("SLURM", "SBATCH_", "OMPI_", "TORCHELASTIC", "KUBERNETES_", "WANDB_SWEEP", "WANDB_RUN", "GIT_")
    own = {"JOB_BEGAN", "RESUBMITTED", "RESUBMITTED_FROM", "SWEEP_AGENT_LEAVING", "LIGHTNING_HPC_TRIAL"}
    own |= {"SIGNAL_SECONDS", "RANK", "LOCAL_RANK", "MASTER_PORT", "PATH", "RSYNC_RSH"}
    section = text_of(DOCS / "reference.md").split("## Environment variables")[1]
    listed = set(re.findall(r"^\| `(\w+)`", section, re.MULTILINE))
    for file in MACHINE_ROOM.rglob("*.py"):
        for name in variables_read(ast.parse(file.read_text(encoding="utf-8"))):
            assert name in listed | own or name.startswith(launchers), f"{file.name} reads {name}"


def variables_read(tree: ast.AST) -> set[str]:
    """Names that are looked for in os.environ."""
    names = set()
    for node in ast.walk(tree):
        where, what = None, None
        if isinstance(node, ast.Subscript):
            where, what = node.value, node.slice
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            where, what = node.func.value, node.args[0]
        elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
            where, what = node.comparators[0], node.left
        if where is not None and ast.unparse(where).endswith("environ") and isinstance(what, ast.Constant):
            names.add(what.value)
    return names


def test_exit_codes_are_those_of_the_code():
    from lightning_hpc import entrance
    from lightning_hpc.runs.folder import EXIT_CODES

    section = text_of(DOCS / "reference.md").split("## Exit codes")[1].split("\n## ")[0]
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)}
    assert listed == {*EXIT_CODES.values(), entrance.WRONG_USAGE, entrance.PIPE_CLOSED, 3}


def test_the_address_is_said_in_one_place(tmp_path):
    import address

    typed = re.compile(r"\b(?:cookiecutter|cruft create) (\S+[:/]\S*cookiecutter-lightning-hpc)")
    here = address.address_of(ROOT)
    named = [found for page in address.pages(ROOT) for found in typed.findall(text_of(page))]
    assert len(named) >= 3 and set(named) == {here}

    # A publisher says it, and says it again: all pages follow.
    for name in ("README.md", "CITATION.cff"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(DOCS, tmp_path / "docs", ignore=shutil.ignore_patterns("_build", "__pycache__"))
    for repository, short in (
        ("https://github.com/ada/cookiecutter-lightning-hpc", "gh:ada/cookiecutter-lightning-hpc"),
        ("https://git.example.org/x/cookiecutter-lightning-hpc",) * 2,
    ):
        address.publish(tmp_path, repository)
        found = [name for page in address.pages(tmp_path) for name in typed.findall(text_of(page))]
        assert set(found) == {short} and len(found) == len(named)
        assert f"repository-code: {repository}\n" in (tmp_path / "CITATION.cff").read_text()
