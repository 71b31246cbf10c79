"""s3://…: what only an object store can do wrong, and what its words mean."""

import os
import signal
import subprocess
import sys
import time

import pytest
from faulty import Fault
from places import S3Place, operations

from lightning_hpc.remote import StoreError, open_store
from lightning_hpc.remote.answers import refused

MEGABYTE = 1 << 20


@pytest.fixture
def bucket(make_place) -> S3Place:
    return make_place("s3")


def test_a_bucket_that_is_not_there_is_no_empty_one(bucket, file, tmp_path):
    store = open_store("s3://no-such-bucket/project")
    for act in operations(store, file, tmp_path / "target"):
        with pytest.raises(StoreError, match="no such place.*NoSuchBucket") as caught:
            act()
        assert type(caught.value) is StoreError and caught.value.permanent


def test_no_key_at_all_says_where_keys_belong(bucket, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(StoreError, match="no key.*AWS_ACCESS_KEY_ID") as caught:
        bucket.open().list("")
    assert caught.value.permanent


def test_a_server_that_nobody_answers_for_is_given_up_soon(bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    begin = time.monotonic()
    with pytest.raises(StoreError, match="no answer.*AWS_ENDPOINT_URL") as caught:
        bucket.open().list("")
    assert not caught.value.permanent and time.monotonic() - begin < 20


def test_an_answer_that_is_lost_does_no_harm(bucket, file):
    """The file is there, and nobody has heard of it: the client sends it again."""
    bucket.proxy.fault = Fault(lost_answer=True, only="^PUT", times=1)
    bucket.open().put({"run/x": file})
    assert bucket.open().list("") == {"run/x": 7}


def test_a_slow_server_is_waited_for(bucket, file):
    bucket.proxy.fault = Fault(seconds=1.5, times=1)
    bucket.open().put({"run/x": file})
    assert bucket.open().list("") == {"run/x": 7}


@pytest.mark.slow
def test_an_upload_that_is_killed_leaves_the_file_before(bucket, file, tmp_path):
    """A large file goes up in parts, and is there only once the store was told that these were all."""
    store = bucket.open()
    store.put({"run/step.ckpt": file})
    large = tmp_path / "large"
    large.write_bytes(bytes(120 * MEGABYTE))
    bucket.proxy.fault = Fault(seconds=60, only="partNumber=2")
    program = "import sys; from pathlib import Path; from lightning_hpc.remote import open_store\n"
    program += "open_store(sys.argv[1]).put({'run/step.ckpt': Path(sys.argv[2])})"
    upload = subprocess.Popen([sys.executable, "-c", program, bucket.url, str(large)], env=os.environ)
    while not any("partNumber=2" in request for request in bucket.proxy.requests):
        assert upload.poll() is None
        time.sleep(0.05)
    upload.send_signal(signal.SIGKILL)
    upload.wait()

    assert store.list("") == {"run/step.ckpt": 7}
    bucket.mend()
    store.get("run/step.ckpt", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"content"


def test_a_full_disk_here_is_an_error_of_the_disk_here(bucket, small_disk, tmp_path):
    large = tmp_path / "large"
    large.write_bytes(bytes(2 * MEGABYTE))
    store = bucket.open()
    store.put({"run/step.ckpt": large})
    with pytest.raises(OSError, match="No space left"):
        store.get("run/step.ckpt", small_disk / "step.ckpt")
    assert not os.listdir(small_disk)


def test_a_package_that_is_missing_is_named(bucket):
    program = "import sys; sys.modules['s3fs'] = None\nfrom lightning_hpc.remote import open_store\n"
    program += f"try: open_store({bucket.url!r})\nexcept ValueError as error: print(error)"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout
    assert said == 'a mirror at s3:// needs s3fs: pip install -e ".[remote]"\n'


@pytest.mark.parametrize(
    "status, headers, code, permanent, retry_after, words",
    [
        (429, {"Retry-After": "120"}, "", False, 120.0, "fewer requests"),
        (429, {"retry-after": "soon"}, "", False, None, "fewer requests"),
        (
            503,
            {"Retry-After": "Mon, 30 Nov 2026 10:01:30 GMT", "Date": "Mon, 30 Nov 2026 10:00:00 GMT"},
            "",
            False,
            90.0,
            "server's own",
        ),
        (429, {"Retry-After": "Mon, 30 Nov 2026 10:01:30 GMT"}, "", False, None, "fewer requests"),
        (400, {}, "SlowDown", False, None, "fewer requests"),
        (507, {}, "XMinioStorageFull", True, None, "no space or quota"),
        (403, {}, "RequestTimeTooSkewed", True, None, "clock"),
        (401, {}, "", True, None, "does not know who asks"),
        (404, {}, "NoSuchBucket", True, None, "no such place"),
        (502, {}, "", False, None, "server's own"),
        (405, {}, "", True, None, "HTTP 405"),
    ],
)
def test_what_a_refusal_means(status, headers, code, permanent, retry_after, words):
    error = refused("s3://bucket", status, headers, code=code)
    assert (error.permanent, error.retry_after) == (permanent, retry_after)
    assert words in str(error) and str(error).startswith("s3://bucket: ")
