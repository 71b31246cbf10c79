"""Downloads from servers that misbehave: the right file or a clear error, in bounded time, and never a bad file."""

import hashlib
import os
import pty
import random
import resource
import shutil
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest
from misbehaving import Misbehaving

from lightning_hpc.data import DownloadError, Source, fetch, fetch_all
from lightning_hpc.data.download import Patience
from lightning_hpc.data.staging import touch

CONTENT = random.Random(0).randbytes(5_000_000)  # two parts for pySmartDL
SHA256 = hashlib.sha256(CONTENT).hexdigest()
QUICK = Patience(seconds=15, rounds=2, pause=0.05)
HASTY = Patience(seconds=0.75, rounds=2, pause=0.05)  # for servers that would keep us waiting for ever
GOOD = ("good", "whole", "no-length", "redirect", "too-long-a-promise")  # the checksum is right
BAD = {
    "not-found": "404",
    "overloaded": "503",
    "login-page": "web page",
    "redirect-to-login": "web page",
    "corrupt": "another checksum",
    "truncated": "4,997,000 of 5,000,000 bytes came",
    "too-short-a-promise": "another checksum",
    "strange-length": "invalid literal for int",
    "reset": "reset|disconnected|closed",
    "reset-half-way": "reset|bytes came|IncompleteRead",
    "silent": "timed out|came in",
    "slow": "less than 64 KiB came in",
    "slow-headers": "less than 64 KiB came in",
}


@pytest.fixture
def server():
    with Misbehaving(CONTENT) as server:
        yield server


def leftovers(folder):
    return [path.name for path in folder.iterdir() if not path.name.endswith(".lock")]


@pytest.mark.parametrize("how", GOOD)
def test_servers_that_are_fine(server, tmp_path, how):
    path = fetch(server.url(how), tmp_path / "new" / "file.bin", SHA256.upper(), patience=QUICK)
    assert path.read_bytes() == CONTENT and leftovers(path.parent) == ["file.bin"]
    assert "pySmartDL/1.3.4" in server.agents and not any("Mozilla" in agent for agent in server.agents)


@pytest.mark.parametrize("how", BAD)
def test_a_fault_is_named_in_bounded_time_and_leaves_nothing(server, tmp_path, how):
    patience = HASTY if how in ("silent", "slow", "slow-headers") else QUICK
    started = time.monotonic()
    with pytest.raises(DownloadError, match=BAD[how]) as error:
        fetch(server.url(how), tmp_path / "file.bin", SHA256, patience=patience)
    assert server.url(how) in str(error.value)
    assert leftovers(tmp_path) == []
    assert time.monotonic() - started < 2 * patience.seconds + 2


@pytest.mark.parametrize("how", ["overloaded-once", "ranges-ignored"])
def test_a_passing_fault_costs_one_more_attempt(server, tmp_path, how):
    assert fetch(server.url(how), tmp_path / "file.bin", SHA256, patience=QUICK).read_bytes() == CONTENT
    assert server.asked[f"/{how}/file.bin"] > 5  # which one attempt needs for two parts


def test_mirrors_are_tried_in_order_and_all_reasons_are_told(server, tmp_path):
    urls = [server.url(how) for how in ("not-found", "corrupt", "login-page", "reset")]
    with pytest.raises(DownloadError) as error:
        fetch(urls, tmp_path / "file.bin", SHA256, patience=QUICK)
    told = str(error.value).splitlines()[1:]
    assert [line.split(": ")[0].strip() for line in told] == urls
    assert "404" in told[0] and "checksum" in told[1] and "web page" in told[2]
    before = server.asked["/not-found/file.bin"]
    assert fetch([*urls, server.url("good")], tmp_path / "file.bin", SHA256, patience=QUICK).read_bytes() == CONTENT
    assert server.asked["/not-found/file.bin"] <= 2 * before  # a 404 is not tried in a second round


def test_a_file_that_is_right_needs_no_server_and_one_that_is_wrong_is_replaced(server, tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(CONTENT)
    old = time.time() - 30 * 86400
    os.utime(path, (old, old))
    tmp_path.chmod(0o555)
    assert fetch("http://127.0.0.1:9/nothing-listens-here", path, SHA256) == path
    tmp_path.chmod(0o755)
    assert list(tmp_path.iterdir()) == [path]  # not even a lock: the folder may be somebody else's
    assert time.time() - path.stat().st_mtime < 60
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(DownloadError):
        fetch(server.url("corrupt"), path, SHA256, patience=QUICK)
    assert path.read_bytes() == CONTENT[:-1]  # an earlier file is not lost to a failure
    assert fetch(server.url("good"), path, SHA256).read_bytes() == CONTENT
    path.unlink()
    assert fetch(server.url("good"), path, md5=hashlib.md5(CONTENT).hexdigest()).read_bytes() == CONTENT


def test_without_a_checksum(server, tmp_path, caplog):
    caplog.set_level("INFO")
    with pytest.raises(DownloadError, match="no checksum for file.bin"):
        fetch(server.url("good"), tmp_path / "file.bin")
    assert not server.asked
    for how, reason in (("truncated", "bytes came"), ("login-page", "web page"), ("too-long-a-promise", "bytes came")):
        with pytest.raises(DownloadError, match=reason):
            fetch(server.url(how), tmp_path / "file.bin", unverified=True, patience=QUICK)
    assert leftovers(tmp_path) == []
    fetch(server.url("good"), tmp_path / "file.bin", unverified=True)
    assert f"not verified: if it is right, note sha256={SHA256}" in caplog.text
    server.content = b""
    with pytest.raises(DownloadError, match="it is empty"):
        fetch(server.url("good"), tmp_path / "other.bin", unverified=True, patience=QUICK)


@pytest.mark.parametrize("limit", [1_000_000, 4_000_000], ids=["in the parts", "when they are put together"])
def test_a_full_disk_stops_at_once(server, tmp_path, limit):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(DownloadError, match="no space left in"):
            fetch([server.url("good"), server.url("whole")], tmp_path / "file.bin", SHA256, patience=QUICK)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert leftovers(tmp_path) == []
    assert not server.asked["/whole/file.bin"]


PROGRAM = """
import sys
from lightning_hpc.data import fetch
url = sys.stdin.read() if sys.argv[1] == "URL" else sys.argv[1]
fetch(url, sys.argv[2], sys.argv[3])
"""


def start(url, path, **options):
    return subprocess.Popen([sys.executable, "-c", PROGRAM, url, str(path), SHA256], **options)


def test_killed_half_way(server, tmp_path):
    path = tmp_path / "file.bin"
    victim = start(server.url("halting"), path)
    while not any(part.stat().st_size for part in tmp_path.glob(".file.bin.part-*/*")):
        time.sleep(0.02)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    (temporary,) = tmp_path.glob(".file.bin.part-*")
    server.resume.set()
    assert server.dropped.wait(600), "the attempt has ended with its parent"
    assert not path.exists() and temporary.exists()
    assert fetch(server.url("good"), path, SHA256).read_bytes() == CONTENT
    assert leftovers(tmp_path) == ["file.bin"]


def test_ctrl_c_ends_a_download(server, tmp_path):
    victim = start(server.url("slow"), tmp_path / "file.bin", stderr=subprocess.PIPE)
    while not server.asked:
        time.sleep(0.02)
    victim.send_signal(signal.SIGINT)
    assert b"KeyboardInterrupt" in victim.communicate(timeout=600)[1]
    assert leftovers(tmp_path) == []


def test_sixteen_processes_download_once(server, tmp_path):
    path = tmp_path / "file.bin"
    processes = [start(server.url("whole"), path) for _ in range(16)]
    assert [process.wait(timeout=600) for process in processes] == [0] * 16
    assert path.read_bytes() == CONTENT and leftovers(tmp_path) == ["file.bin"]
    alone = Misbehaving(CONTENT)
    with alone:
        fetch(alone.url("whole"), tmp_path / "other.bin", SHA256)
    assert server.asked == alone.asked


def test_processes_that_waited_for_a_failure_do_not_repeat_it(server, tmp_path):
    processes = [start(server.url("corrupt"), tmp_path / "file.bin", stderr=subprocess.PIPE) for _ in range(6)]
    errors = [process.communicate(timeout=600)[1].decode() for process in processes]
    assert all("it has another checksum" in error for error in errors)
    assert server.asked["/corrupt/file.bin"] <= 3 * 5  # three rounds of one process
    assert fetch(server.url("good"), tmp_path / "file.bin", SHA256).read_bytes() == CONTENT  # a new call tries again
    assert leftovers(tmp_path) == ["file.bin"]


@pytest.mark.parametrize("kind", ["planted", "planted link", "left by a kill"])
def test_a_note_of_a_failure_from_the_future_blocks_nothing(server, tmp_path, kind):
    note, precious = tmp_path / ".file.bin.failed", tmp_path / "precious"
    precious.write_text("mine")
    if kind == "planted link":
        note.symlink_to(precious)
    else:
        note.write_text("it has failed")
        os.utime(note, (time.time() + 86_400,) * 2)
    fetch(server.url("whole"), tmp_path / "file.bin", SHA256, patience=QUICK)
    assert leftovers(tmp_path) == ["precious", "file.bin"] or leftovers(tmp_path) == ["file.bin", "precious"]
    assert precious.read_text() == "mine"


def with_secrets(url):
    return url.replace("://", "://me:pass%20word@") + "?key=t0ken"


@pytest.mark.parametrize("how", ["not-found", "bad address", "elsewhere", "no server", "no port"])
def test_keys_in_addresses_are_not_told(server, tmp_path, caplog, how):
    caplog.set_level("INFO")
    server.other = "s3://store/file.bin?key=t0ken"
    url = {
        "bad address": with_secrets(server.url("good")) + " here",
        "no server": with_secrets("http://127.0.0.1:9/good/file.bin"),
        "no port": with_secrets("http://127.0.0.1:port/file.bin"),
    }.get(how, with_secrets(server.url(how)))
    with pytest.raises(DownloadError) as error:
        fetch(url, tmp_path / "file.bin", SHA256, patience=QUICK)
    shown = str(error.value) + caplog.text + repr(Source([url], "file.bin", SHA256))
    assert "http://127.0.0.1" in shown and ".bin" in shown
    assert not any(secret in shown for secret in ("me:", "pass", "word", "t0ken"))


def test_no_process_has_a_key_on_its_command_line(server, tmp_path):
    url = with_secrets(server.url("halting"))
    watched = start("URL", tmp_path / "file.bin", stdin=subprocess.PIPE)
    watched.stdin.write(url.encode())
    watched.stdin.close()
    while not server.asked:
        time.sleep(0.02)
    children = Path(f"/proc/{watched.pid}/task")
    (attempt,) = {number for file in children.glob("*/children") for number in file.read_text().split()}
    seen = Path(f"/proc/{attempt}/cmdline").read_text() + Path(f"/proc/{attempt}/environ").read_text()
    assert "attempt.py" in seen and "t0ken" not in seen and "pass" not in Path(f"/proc/{attempt}/cmdline").read_text()
    server.resume.set()
    assert watched.wait(timeout=60) == 0


def test_user_and_password_are_sent_to_their_server_only(server, tmp_path):
    with Misbehaving(CONTENT) as other:
        fetch(with_secrets(server.url("members-only")), tmp_path / "a.bin", SHA256, patience=QUICK)
        server.other = other.url("good")
        fetch(with_secrets(server.url("elsewhere")), tmp_path / "b.bin", SHA256, patience=QUICK)
        assert other.asked and other.logins == {None}


@pytest.fixture
def secure(server, tmp_path, monkeypatch):
    """A server with https, whose certificate is believed."""
    certificate = tmp_path / "certificate.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost -days 2"
    command += f" -addext subjectAltName=IP:127.0.0.1 -keyout {certificate} -out {tmp_path / 'public.pem'}"
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate")
    subprocess.run(command.split(), check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "public.pem"))

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "public.pem", certificate)
    with Misbehaving(CONTENT, context) as secure:
        secure.other = server.url("good")
        yield secure


def test_a_redirect_from_https_to_http_needs_a_sha256(secure, server, tmp_path):
    folder = tmp_path / "data"
    for trust in (dict(unverified=True), dict(md5=hashlib.md5(CONTENT).hexdigest())):
        with pytest.raises(DownloadError, match="redirects from https to http, where a file needs a sha256"):
            fetch(secure.url("elsewhere"), folder / "file.bin", patience=QUICK, **trust)
    assert not server.asked and leftovers(folder) == []
    assert fetch(secure.url("elsewhere"), folder / "file.bin", SHA256, patience=QUICK).read_bytes() == CONTENT
    secure.other = secure.url("good")
    fetch(secure.url("elsewhere"), folder / "other.bin", unverified=True, patience=QUICK)


def test_several_at_once(server, tmp_path):
    server.files = {f"{n}.bin": bytes([n]) * 1000 for n in range(6)}
    sources = [
        Source([server.url("good", name)], tmp_path / name, hashlib.sha256(content).hexdigest(), size=1000)
        for name, content in server.files.items()
    ]
    paths = fetch_all(sources, patience=QUICK)
    assert [path.read_bytes() for path in paths] == list(server.files.values())
    sources.insert(0, Source([server.url("corrupt")], tmp_path / "bad.bin", SHA256))
    with pytest.raises(DownloadError, match="bad.bin can't be downloaded"):
        fetch_all(sources, patience=QUICK)
    assert all(path.exists() for path in paths)


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_for_terminals(server, tmp_path, terminal):
    main, side = pty.openpty()
    process = start(server.url("good"), tmp_path / "file.bin", stderr=side if terminal else subprocess.PIPE)
    os.close(side)
    shown = b""
    if terminal:
        with open(main, "rb", buffering=0) as stream:
            try:
                while part := stream.read(1000):
                    shown += part
            except OSError:  # the end, on Linux
                pass
    else:
        shown = process.communicate()[1]
        os.close(main)
    assert process.wait() == 0
    assert (b"file.bin" in shown) == terminal


def test_touch(tmp_path):
    names = ["a", "b/c", "b/d"]
    for age, name in enumerate(names):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.touch()
        os.utime(file, (time.time() - age * 20 * 86400,) * 2)
    assert touch(tmp_path, days=30) == 1
    assert touch(tmp_path, days=30) == 0
    assert touch(tmp_path) == 3
    assert all(time.time() - (tmp_path / name).stat().st_mtime < 60 for name in names)
