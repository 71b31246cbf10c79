"""The sweep server, agents that ask it, and messages at the end of a sweep."""

import threading
import time
import urllib.error
import urllib.request

import pytest
from webhook import webhook  # noqa: F401

from package.launch import agent as agents
from package.launch.notify import notify, notify_once
from package.launch.server import SweepServer, address
from package.runs.settings import SettingsError


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
            assert server.create_once(create) == "team/project/sweep1"
            answer = get(f"{server.url}/api/get_sweep_id")
            assert answer == (200, "text/plain; charset=utf-8", "team/project/sweep1")
            assert get(f"{server.url}/anything")[0] == 404
    assert created == [1]


def test_until_there_is_a_sweep_it_says_so(tmp_path):
    with SweepServer(("127.0.0.1", 0), tmp_path / "server.json") as server:
        assert get(f"{server.url}/api/get_sweep_id")[0] == 503


def test_agents_wait_for_the_server_and_for_its_sweep(tmp_path, capsys):
    with SweepServer(("127.0.0.1", 0), tmp_path / "server.json") as server:
        port = server.http.server_port  # free again in a moment
    found = []
    asking = threading.Thread(target=lambda: found.append(agents.ask(f"http://127.0.0.1:{port}/", pause=0.05)))
    asking.start()
    time.sleep(0.3)
    with SweepServer(("127.0.0.1", port), tmp_path / "server.json") as server:
        time.sleep(0.3)
        assert found == []
        server.create_once(lambda: "sweeps/bowl")
        asking.join(timeout=5)
    assert found == ["sweeps/bowl"]
    assert capsys.readouterr().out.count("waiting for the sweep server") == 2  # once for each reason


def test_an_address_that_is_no_sweep_server_is_said():
    with pytest.raises(SettingsError, match="write it as http://HOST:PORT"):
        agents.ask("example.org:5001")


@pytest.mark.parametrize(
    "typed, meant",
    [(":5001", ("127.0.0.1", 5001)), ("0.0.0.0:80", ("0.0.0.0", 80)), ("localhost", ("localhost", 5001))],
)
def test_it_is_bound_to_loopback_unless_told_otherwise(typed, meant):
    assert address(typed) == meant


def test_a_wrong_port_or_one_that_is_taken_is_said(tmp_path):
    with pytest.raises(SettingsError, match="write HOST:PORT"):
        address("localhost:http")
    with SweepServer(("127.0.0.1", 0), tmp_path / "server.json") as server:
        with pytest.raises(SettingsError, match="can't serve at 127.0.0.1"):
            SweepServer(("127.0.0.1", server.http.server_port), tmp_path / "server.json")


def test_a_sweep_that_ends_sends_one_message_however_many_agents_it_had(create, agent, webhook):  # noqa: F811
    local = create(method="grid", parameters={"x": {"values": [0.1, 0.2, 0.3]}})
    for process in [agent(str(local.folder)) for _ in range(3)] + [agent(str(local.folder))]:
        assert process.wait(timeout=60) == 0
    (message,) = webhook
    assert message["text"].startswith("sweep sweeps/bowl has ended\n") and "best: trial 2" in message["text"]


def test_without_an_address_nothing_is_sent(tmp_path):
    assert notify("title", "text") == [] and notify_once(tmp_path, "a/b/c", "text") == []
    assert not (tmp_path / "sweeps").exists()


def test_a_webhook_that_is_away_is_said_and_its_address_is_not(monkeypatch):
    monkeypatch.setenv("NOTIFY_WEBHOOK", "http://127.0.0.1:9/secret")
    assert notify("title", "text") == ["webhook: not sent: it can't be reached"]
