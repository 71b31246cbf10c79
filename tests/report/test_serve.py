"""The page from a server: a real process on loopback, which only answers who knows its token."""

import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from made_runs import write_run

PROJECT = Path(__file__).parents[2] / "{{cookiecutter.project_slug}}"


@pytest.fixture
def server(runs):
    """A server's process and its address."""
    command = [sys.executable, str(PROJECT / "Report.py"), "serve", str(runs)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def test_each_reload_shows_what_is_new(server, runs, open_page):
    process, address = server
    page = open_page(address)
    assert page.text_content("#count") == "24 of 24 runs"
    added = write_run(runs / "other" / "000-new-0badcafe", metrics={"val/acc": 0.1})
    try:
        again = open_page(address)
        assert again.text_content("#count") == "25 of 25 runs"
    finally:
        for file in added.iterdir():
            file.unlink()
        added.rmdir()
        added.parent.rmdir()


def test_without_the_token_there_is_no_answer(server):
    _, address = server
    host, token = re.fullmatch(r"(http://127\.0\.0\.1:\d+)/([\w-]{32})", address).groups()
    for path in ("", "/", f"/{token[:-1]}", f"/{token}x", "/../", "/%00"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(host + path)
        assert refused.value.code == 404
    assert urllib.request.urlopen(address).headers["Cache-Control"] == "no-store"


def test_it_says_how_to_reach_it_and_ends_at_ctrl_c(server):
    process, address = server
    port = address.split(":")[2].partition("/")[0]
    lines = [process.stdout.readline() for _ in range(3)]
    assert f"ssh -N -L {port}:127.0.0.1:{port} " in lines[1]
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0 and process.stderr.read() == ""


def test_it_listens_on_loopback_only(server):
    _, address = server
    port = int(address.split(":")[2].partition("/")[0])
    own = socket.gethostbyname(socket.gethostname())
    if own.startswith("127."):
        pytest.skip("this machine has no other address")
    with pytest.raises(OSError):
        socket.create_connection((own, port), timeout=2).close()


def test_a_port_that_is_taken_is_said(runs):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        command = [sys.executable, str(PROJECT / "Report.py"), "serve", str(runs), "--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith(f"error: --port {port}: Address already in use")
