"""The units: accepted by systemd-analyze, hardened, and in agreement with the agent's exit codes.

Not run here: the units themselves, since process 1 of a test machine is seldom systemd. Instead, the agent's system calls are
compared with the unit's filter."""

import re
import shutil
import socket
import subprocess

import pytest
from conftest import DEPLOY, run, tool

UNIT = DEPLOY / "systemd/rds-lb-agent.service"
DROP_IN = DEPLOY / "systemd/haproxy.service.d/rds-lb-agent.conf"


def setting(name, text=None):
    return re.findall(rf"^{name}=(.*)$", text or UNIT.read_text(), re.M)


@pytest.fixture
def placed(tmp_path, agent):
    """The unit, with the path of a program that exists."""
    path = tmp_path / UNIT.name
    path.write_text(UNIT.read_text().replace("/usr/bin/rds-lb-agent", agent))
    return path


def test_systemd_accepts_the_unit(placed):
    output = run(tool("systemd-analyze"), "verify", "--man=no", placed)
    assert str(placed.name) not in output, output


def test_systemd_accepts_haproxys_unit_with_the_drop_in(tmp_path, agent):
    theirs = next((path for path in map(DEPLOY.__class__, ["/lib/systemd/system/haproxy.service"]) if path.exists()), None)
    if not theirs:
        pytest.skip("haproxy.service is not installed")
    shutil.copy(theirs, tmp_path / "haproxy.service")
    (tmp_path / "haproxy.service.d").mkdir()
    text = DROP_IN.read_text().replace("/usr/bin/rds-lb-agent", agent)
    (tmp_path / "haproxy.service.d/rds-lb-agent.conf").write_text(text)
    output = run(tool("systemd-analyze"), "verify", "--man=no", tmp_path / "haproxy.service")
    assert "rds-lb-agent.conf" not in output, output
    # But for the dump, a reload is that of HAProxy's own unit.
    ours = [line for line in setting("ExecReload", DROP_IN.read_text()) if line and "server-state" not in line]
    assert ours == setting("ExecReload", theirs.read_text())


def test_the_exposure_stays_low(placed):
    output = run(tool("systemd-analyze"), "security", "--offline=true", "--threshold=15", "--no-pager", placed)
    level = re.search(r"Overall exposure level .*: ([0-9.]+)", output)
    print(level[0])
    assert float(level[1]) <= 1.5


def test_only_a_wrong_configuration_is_not_restarted(tmp_path, agent):
    assert setting("RestartPreventExitStatus") == ["64"] and setting("Restart") == ["always"]
    config = tmp_path / "config.yaml"
    text = "databases:\n  - {name: o, engine: postgresql, user: u, region: eu-west-1, instances: [{name: a, endpoint: 'a.b:1', connect: '127.0.0.1:1'}]}\n"

    def exit_code(listen):
        config.write_text(f"{text}state_dir: {tmp_path}/state\nlisten: {{{listen}, control: {tmp_path}/control.sock}}\n")
        return subprocess.run([agent, "run", "--config", str(config)], timeout=60, capture_output=True).returncode

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        in_use = f"127.0.0.1:{taken.getsockname()[1]}"
        assert exit_code(f"agent_check: '{in_use}', http: '127.0.0.1:0'") == 2
    assert exit_code("nonsense: 1") == 64


def test_the_agent_needs_no_system_call_that_the_unit_refuses(tmp_path, agent):
    """A start, a failed login, a check over HTTP and a stop under strace."""
    strace = tool("strace")
    config, log = tmp_path / "config.yaml", tmp_path / "strace.log"
    config.write_text(
        "databases:\n  - {name: o, engine: postgresql, user: u, region: eu-west-1, instances: [{name: a, endpoint: 'a.b:1', connect: '127.0.0.1:1'}]}\n"
        f"state_dir: {tmp_path}/state\nlisten: {{agent_check: '127.0.0.1:0', http: '127.0.0.1:0', control: {tmp_path}/control.sock}}\n"
    )
    subprocess.run(["timeout", "--preserve-status", "-s", "TERM", "5", strace, "-f", "-qq", "-o", str(log), agent, "run", "--config", str(config)],
                   env={"AWS_EC2_METADATA_DISABLED": "true", "PATH": "/usr/bin:/bin"}, capture_output=True)
    used = set(re.findall(r"^\d+ +(\w+)\(", log.read_text(), re.M))
    assert "connect" in used or "openat" in used

    def calls(name):
        text = run(tool("systemd-analyze"), "--no-pager", "syscall-filter", name)
        found = set()
        for line in text.splitlines()[1:]:
            word = line.strip()
            if word.startswith("@"):
                found |= calls(word)
            elif word and not word.startswith("#"):
                found.add(word)
        return found

    allowed, refused = setting("SystemCallFilter")
    filtered = calls(allowed) - set().union(*(calls(name) for name in refused.removeprefix("~").split()))
    assert used <= filtered, used - filtered
