"""The commands `Report.py html` and `Report.py serve`: all runs as one page."""

import argparse
import shlex
import sys
import time
from pathlib import Path

from ..files import write_atomically
from ..printing import counted
from ..results.reading import read
from ..settings.errors import SettingsError
from ..settings.places import existing
from .content import now, page_content
from .page import make_page
from .server import serve
from .table import runs_of

HTML_HELP = "write one file with all runs: table, curves, sweeps, CKA maps; it opens by double click and can be mailed"
HTML_EXAMPLES = """examples:
  python Report.py html                                  all runs in runs/, as report.html
  python Report.py html runs/wide -o wide.html           those of one experiment
  python Report.py html --where 'state == "done"'        only those that are done
  python Report.py html --every 60                       write it anew each minute while runs go on; Ctrl-C ends it
"""
SERVE_HELP = "show the same page from this machine, fresh at each reload; only who has the printed address can see it"
SERVE_EXAMPLES = """examples:
  python Report.py serve                                 all runs in runs/
  python Report.py serve runs/wide --port 8050           those of one experiment, at this port
"""
SHORTEST_PAUSE = 5  # seconds; file systems of clusters are shared


def add_pages(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add both commands to those of Report.py."""
    raw = argparse.RawDescriptionHelpFormatter
    html = commands.add_parser("html", help=HTML_HELP, description=HTML_HELP, epilog=HTML_EXAMPLES, formatter_class=raw)
    add_choice(html)
    html.add_argument("-o", "--output", type=Path, default=Path("report.html"), help="default: report.html")
    html.add_argument("--every", type=float, metavar="SECONDS", help="write it again and again, until Ctrl-C")

    live = commands.add_parser(
        "serve", help=SERVE_HELP, description=SERVE_HELP, epilog=SERVE_EXAMPLES, formatter_class=raw
    )
    add_choice(live)
    live.add_argument("--port", type=int, default=0, help="default: any that is free")


def add_choice(command: argparse.ArgumentParser) -> None:
    """The options that say which runs."""
    about = "folders of experiments or runs; default: the project's runs"
    command.add_argument("folders", type=existing, nargs="*", help=about)
    command.add_argument("--where", metavar="QUERY", help="only the runs for which this is true, as for table")
    command.add_argument("--last", type=int, metavar="N", help="only the N runs that were started last")


def write_page(arguments: argparse.Namespace, root: Path) -> int:
    """Write the page, once or again and again; returns the exit code.

    Raises:
        SettingsError: the folders or the query are none, or the file can't be written.
    """
    if arguments.every is not None and arguments.every < SHORTEST_PAUSE:
        raise SettingsError(f"--every {arguments.every:g}: at least {SHORTEST_PAUSE} seconds")

    while True:
        page, count = page_of(arguments, root)
        try:
            write_atomically(arguments.output, page)
        except OSError as error:
            raise SettingsError(f"{arguments.output} can't be written: {error.strerror}") from None
        size = len(page.encode()) / 1e6
        print(f"{arguments.output}: {counted(count, 'run')}, {size:.1f} MB", flush=True)

        if arguments.every is None:
            return 0
        try:
            time.sleep(arguments.every)
        except KeyboardInterrupt:
            return 0


def serve_page(arguments: argparse.Namespace, root: Path) -> int:
    """Serve the page until Ctrl-C; returns the exit code."""
    page_of(arguments, root)  # what is wrong is said now, not in the browser
    return serve(lambda: page_of(arguments, root)[0], arguments.port)


def page_of(arguments: argparse.Namespace, root: Path) -> tuple[str, int]:
    """The page as it is now, and the number of its runs."""
    results = read(*(arguments.folders or [runs_of(root)]), where=arguments.where, last=arguments.last)
    if not len(results):
        print("no runs", file=sys.stderr)

    folders = [str(folder) for folder in arguments.folders]
    title = f"Runs of {root.name}"
    if folders:
        title = ", ".join("/".join(folder.absolute().parts[-2:]) for folder in arguments.folders)
    command = shlex.join(["python", "Report.py", arguments.command, *folders])
    if arguments.where:
        command += f" --where {shlex.quote(arguments.where)}"
    return make_page(page_content(results, title, f"Made {now()} by {command}")), len(results)
