"""The sweep server, agents that ask it, and messages at the end of a sweep."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from lightning_hpc.notify import notify, notify_once
from lightning_hpc.processes import has_not_ended
from lightning_hpc.settings.errors import SettingsError
from lightning_hpc.sweeps.creation import main as create_sweep
from lightning_hpc.sweeps.server import MOST, SweepServer, ask, read_address


def get(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read().decode()


def test_it_says_the_bare_id_and_keeps_it_when_it_is_started_again(tmp_path):
    kept, created = tmp_path / "sweeps" / "server.json", []

    def create():
        created.append(1)
        return f"team/project/sweep{len(created)}"

    for _ in range(2):
        with SweepServer(("127.0.0.1", 0), kept) as server:
            assert get(f"{server.url}/healthz") == (200, "text/plain; charset=utf-8", "ok")
            assert server.create_once(create, "a.yaml") == "team/project/sweep1"
            answer = get(f"{server.url}/api/get_sweep_id")
            assert answer == (200, "text/plain; charset=utf-8", "team/project/sweep1")
            assert get(f"{server.url}/anything")[0] == 404
    assert created == [1]


def test_two_servers_that_start_at_the_same_time_serve_one_sweep(tmp_path):
    """On two login nodes, or at two ports: the second one starts while the first one creates the sweep."""
    servers = [SweepServer(("127.0.0.1", 0), tmp_path / "sweeps" / "server.json") for _ in range(2)]
    ids, threads = [], []

    def start(number, create):
        ids.append(servers[number].create_once(create, "a.yaml"))

    def create():
        threads.append(threading.Thread(target=start, args=(1, lambda: "team/project/second")))
        threads[0].start()
        threads[0].join(timeout=0.5)
        return "team/project/first"

    start(0, create)
    threads[0].join(timeout=60)
    for server in servers:
        server.http.server_close()
    assert ids == ["team/project/first"] * 2


def test_another_sweep_than_the_one_that_is_kept_is_not_served_in_its_place(tiny):
    sweeps = tiny / "configs" / "sweeps"
    sweeps.mkdir()
    for name in ("bowl", "other"):
        (sweeps / f"{name}.yaml").write_text("method: grid\nparameters: {x: {value: 0.1}}\n")
    (tiny / "sweeps").mkdir()
    kept = dict(sweep="team/project/id", source="configs/sweeps/bowl.yaml")
    (tiny / "sweeps" / "server.json").write_text(json.dumps(kept))
    with pytest.raises(SettingsError, match="keeps team/project/id, .* of configs/sweeps/bowl.yaml and not"):
        create_sweep(["other", "--serve", "127.0.0.1:0"], tiny)


def test_until_there_is_a_sweep_it_says_so(tmp_path):
    with SweepServer(("127.0.0.1", 0), tmp_path / "server.json") as server:
        assert get(f"{server.url}/api/get_sweep_id")[0] == 503


def test_agents_wait_for_the_server_and_for_its_sweep(tmp_path, capsys):
    with SweepServer(("127.0.0.1", 0), tmp_path / "server.json") as server:
        port = server.http.server_port  # free again in a moment
    found = []
    asking = threading.Thread(target=lambda: found.append(ask(f"http://127.0.0.1:{port}/", pause=0.05)))
    asking.start()
    time.sleep(0.3)
    with SweepServer(("127.0.0.1", port), tmp_path / "server.json") as server:
        time.sleep(0.3)
        assert found == []
        server.create_once(lambda: "sweeps/bowl", "bowl.yaml")
        asking.join(timeout=5)
    assert found == ["sweeps/bowl"]
    assert capsys.readouterr().out.count("waiting for the sweep server") == 2  # once for each reason


def test_connections_that_say_nothing_keep_nobody_from_an_answer(tmp_path):
    with SweepServer(("127.0.0.1", 0), tmp_path / "server.json") as server:
        silent = []
        for number in range(510):
            silent.append(socket.create_connection(("127.0.0.1", server.http.server_port), timeout=60))
            silent[-1].sendall(b"GET /api/get" if number % 2 else b"")
        assert get(f"{server.url}/healthz")[2] == "ok"
        while len(server.http.open) > MOST:  # the oldest are ended, and their threads with them
            time.sleep(0.02)
        for connection in silent:
            connection.close()


def test_a_connection_that_says_nothing_is_ended_after_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr("lightning_hpc.sweeps.server.SILENCE", 0.1)
    with SweepServer(("127.0.0.1", 0), tmp_path / "server.json") as server:
        with socket.create_connection(("127.0.0.1", server.http.server_port), timeout=60) as connection:
            assert connection.recv(1) == b""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_in_order(start, tiny, number):
    (tiny / "sweeps").mkdir()
    (tiny / "sweeps" / "server.json").write_text(json.dumps({"sweep": "sweeps/bowl"}))
    (tiny / "configs" / "sweeps").mkdir()
    (tiny / "configs" / "sweeps" / "default.yaml").write_text("method: grid\nparameters: {x: {value: 0.1}}\n")
    server = start("CreateSweep.py", "--serve", "127.0.0.1:0")
    assert server.stdout.readline().startswith("sweep sweeps/bowl at http://127.0.0.1:")
    server.send_signal(number)
    said, _ = server.communicate(timeout=600)
    assert (server.returncode, said) == (
        0,
        "the server ends; sweep sweeps/bowl goes on, and the next start serves it again\n",
    )


def test_a_signal_before_there_is_a_sweep_ends_the_server_and_the_run_that_it_has_started(tiny):
    """The door has another way to create its sweep: as the real one, it waits for a run."""
    program = (
        "import sys; from pathlib import Path; from lightning_hpc.processes import Child; "
        "from lightning_hpc.sweeps.server import serve\n"
        "def create():\n"
        "    with Child([sys.executable, '-c', 'import time; time.sleep(60)']) as child:\n"
        "        print(child.pid, flush=True)\n"
        "        child.wait()\n"
        "serve('127.0.0.1:0', create, 'bowl.yaml', Path.cwd())"
    )
    command = [sys.executable, "-c", program]
    server = subprocess.Popen(command, cwd=tiny, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    run = int(server.stdout.readline())
    server.send_signal(signal.SIGINT)
    _, complaints = server.communicate(timeout=600)
    assert server.returncode == 130 and complaints == "SIGINT: there is no sweep yet, and the server ends\n"
    assert not has_not_ended(run) and not (tiny / "sweeps" / "server.json").exists()


def test_an_address_that_is_no_sweep_server_is_said():
    with pytest.raises(SettingsError, match="write it as http://HOST:PORT"):
        ask("example.org:5001")


@pytest.mark.parametrize(
    "typed, meant",
    [(":5001", ("127.0.0.1", 5001)), ("0.0.0.0:80", ("0.0.0.0", 80)), ("localhost", ("localhost", 5001))],
)
def test_it_is_bound_to_loopback_unless_told_otherwise(typed, meant):
    assert read_address(typed) == meant


def test_a_wrong_port_or_one_that_is_taken_is_said(tmp_path):
    with pytest.raises(SettingsError, match="write HOST:PORT"):
        read_address("localhost:http")
    with SweepServer(("127.0.0.1", 0), tmp_path / "server.json") as server:
        with pytest.raises(SettingsError, match="can't serve at 127.0.0.1"):
            SweepServer(("127.0.0.1", server.http.server_port), tmp_path / "server.json")


def test_a_sweep_that_ends_sends_one_message_however_many_agents_it_had(create, agent, webhook):
    local = create(method="grid", parameters={"x": {"values": [0.1, 0.2, 0.3]}})
    for process in [agent(str(local.folder)) for _ in range(3)] + [agent(str(local.folder))]:
        assert process.wait(timeout=600) == 0
    (message,) = webhook
    assert message["text"].startswith("sweep sweeps/bowl has ended\n") and "best: trial 2" in message["text"]


def test_without_an_address_nothing_is_sent(tmp_path):
    assert notify("title", "text") == [] and notify_once(tmp_path, "a/b/c", "text") == []
    assert not (tmp_path / "sweeps").exists()


def test_a_webhook_that_is_away_is_said_and_its_address_is_not(monkeypatch):
    monkeypatch.setenv("NOTIFY_WEBHOOK", "http://127.0.0.1:9/secret")
    assert notify("title", "text") == ["webhook: not sent: it can't be reached"]


@pytest.mark.parametrize("code", [301, 302, 303, 307])
def test_a_webhook_that_redirects_has_not_got_the_message(monkeypatch, code):
    class Moved(BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(code)
            self.send_header("Location", "/new-secret")
            self.end_headers()

        def do_GET(self):  # where urllib would go, without the message
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Moved) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs=dict(poll_interval=0.05))
        thread.start()
        monkeypatch.setenv("NOTIFY_WEBHOOK", f"http://127.0.0.1:{http.server_port}/secret")
        (line,) = notify("title", "text")
        http.shutdown()
        thread.join()
    assert line.startswith(f"webhook: not sent: it answers {code} and has another address") and "secret" not in line


@pytest.mark.parametrize("address", ["file:///etc/hostname", "ftp://127.0.0.1/x", "data:,x", "http://127.0.0.1:9/a b"])
def test_an_address_that_is_no_webhook_is_an_error(monkeypatch, address):
    monkeypatch.setenv("NOTIFY_WEBHOOK", address)
    assert notify("title", "text")[0].startswith("webhook: not sent: ")
