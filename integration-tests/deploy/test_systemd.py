"""The units: accepted by systemd-analyze, hardened, and in agreement with the agent's exit codes.

Not run here: the units themselves, since process 1 of a test machine is seldom systemd. Instead, the agent's system calls are
compared with the unit's filter."""

import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest
from conftest import DEPLOY, ROOT, run, tool

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


def test_systemd_accepts_the_socket_unit_and_it_has_the_agents_default_addresses(placed):
    unit = placed.with_suffix(".socket")
    shutil.copy(DEPLOY / "systemd/rds-lb-agent.socket", unit)
    output = run(tool("systemd-analyze"), "verify", "--man=no", unit)
    assert "rds-lb-agent" not in output, output
    documented = re.findall(r"Default: (127\.0\.0\.1:\d+)", (ROOT / "docs/CONFIGURATION.md").read_text())
    assert setting("ListenStream", unit.read_text()) == documented


def test_the_service_is_stopped_before_the_socket_unit_starts():
    """systemd refuses to start a socket unit while its service is active."""
    for path in ("deploy/systemd/rds-lb-agent.socket", "docs/INSTALL.md"):
        text = (ROOT / path).read_text()
        assert re.search(r"systemctl stop rds-lb-agent\b[^.]*systemctl enable --now rds-lb-agent\.socket && [a-z ]*systemctl start rds-lb-agent", text), path


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


def test_systemd_accepts_the_documented_drop_in_for_owners_of_token_files(placed):
    section = (ROOT / "docs/CLIENTS.md").read_text().split("### `token_files[].owner` under systemd\n")[1]
    text = section.split("```\n")[1]
    folder = placed.with_name(f"{placed.name}.d")
    folder.mkdir()
    (folder / "owner.conf").write_text(text)
    output = run(tool("systemd-analyze"), "verify", "--man=no", placed)
    assert placed.name not in output and "owner.conf" not in output, output
    assert setting("CapabilityBoundingSet", text) == setting("AmbientCapabilities", text) == ["CAP_CHOWN"]
    assert "chown" in run(tool("systemd-analyze"), "--no-pager", "syscall-filter", *setting("SystemCallFilter", text)).split()


def test_token_files_in_the_runtime_directory_outlive_a_restart():
    assert setting("RuntimeDirectory") == ["rds-lb-agent"] and setting("RuntimeDirectoryPreserve") == ["yes"]


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


def small_configuration(folder, agent_check, http):
    path = folder / "config.yaml"
    path.write_text(
        "databases:\n  - {name: o, engine: postgresql, user: u, region: eu-west-1, instances: [{name: a, endpoint: 'a.b:1', connect: '127.0.0.1:1'}]}\n"
        f"state_dir: {folder}/state\nlisten: {{agent_check: '{agent_check}', http: '{http}', control: {folder}/control.sock}}\n"
    )
    return path


def check(address, seconds=10):
    """An agent check, as HAProxy makes it."""
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=seconds) as connection:
        connection.sendall(b"orders_write/a\n")
        return connection.recv(100)


def listening():
    one = socket.create_server(("127.0.0.1", 0), backlog=1024)
    return one, f"127.0.0.1:{one.getsockname()[1]}"


def test_the_agent_takes_over_sockets_from_systemd_socket_activate(tmp_path, agent):
    activate = tool("systemd-socket-activate")
    sockets = [listening() for _ in range(2)]
    (check_at, http) = (address for _, address in sockets)
    for one, _ in sockets:
        one.close()
    config = small_configuration(tmp_path, check_at, http)
    process = subprocess.Popen([activate, "-l", check_at, "-l", http, "-E", "AWS_EC2_METADATA_DISABLED=true", agent, "run", "--config", str(config)],
                               stderr=(tmp_path / "log").open("w"))
    try:
        end = time.monotonic() + 30
        while True:
            try:
                # The first connection starts the agent.
                assert check(check_at).endswith(b"\n")
                break
            except ConnectionRefusedError:
                assert time.monotonic() < end, "systemd-socket-activate does not listen"
                time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, (tmp_path / "log").read_text()
    finally:
        process.kill()
    assert "cannot listen" not in (tmp_path / "log").read_text()


def test_no_check_is_refused_while_the_agent_restarts(tmp_path, agent):
    """This test holds the sockets as systemd does, and passes them on."""
    sockets = [listening() for _ in range(2)]
    check_at, http = (address for _, address in sockets)
    config = small_configuration(tmp_path, check_at, http)
    log = (tmp_path / "log").open("w")
    # They become the descriptors 3 and 4 of the agent.
    passed = [fcntl.fcntl(one.fileno(), fcntl.F_DUPFD, 100) for one, _ in sockets]
    script = f"exec 3<&{passed[0]} 4<&{passed[1]}; export LISTEN_FDS=2 LISTEN_PID=$$; exec {agent} run --config {config}"

    def start():
        return subprocess.Popen(["bash", "-c", script], pass_fds=passed, stderr=log, env={**os.environ, "AWS_EC2_METADATA_DISABLED": "true"})

    answers, failures, ends = [], [], threading.Event()

    def load():
        while not ends.is_set():
            try:
                answers.append(check(check_at, seconds=30))
            except OSError as error:
                failures.append(repr(error))
            time.sleep(0.002)

    process = start()
    clients = [threading.Thread(target=load) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        for _ in range(3):
            before = len(answers)
            while len(answers) < before + 500:
                assert process.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.01)
            process.send_signal(signal.SIGUSR1)
            assert process.wait(30) == 0
            process = start()
    finally:
        before, end = len(answers), time.monotonic() + 60
        while len(answers) < before + 10 and time.monotonic() < end:
            time.sleep(0.01)
        ends.set()
        for client in clients:
            client.join()
        process.terminate()
        process.wait(30)
        for descriptor in passed:
            os.close(descriptor)
        for one, _ in sockets:
            one.close()
    assert not failures, failures[:5]
    assert len(answers) >= 1500 and all(answer.endswith(b"\n") for answer in answers)
