"""The Ansible collection, run for real: three hosts, which are folders of this machine, each with an agent and a HAProxy in
front of one stand-in for RDS.

Not run here: the tasks for systemd, apt, dnf and the agent's user (ansible-lint and check mode see them)."""

import os
import re
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import jinja2
import pytest
import yaml
from conftest import DEPLOY, VENV, free_ports, login, run, status, tool, until

COLLECTION = DEPLOY / "ansible"
PLAYBOOKS = COLLECTION / "playbooks"

# What a supervisor does for the roles: starts the program, or tells the one that runs to hand over or to reload.
SUPERVISOR = """#!/bin/sh
cd {root}
case $1 in
  agent)
    if [ -s agent.pid ]; then kill -USR1 "$(cat agent.pid)"; while kill -0 "$(cat agent.pid)" 2>/dev/null; do sleep 0.05; done; fi
    # Not a child of Ansible's, which would wait for it.
    setsid {root}/bin/rds-lb-agent run --config {root}/etc/config.yaml >>agent.log 2>&1 </dev/null & echo $! >agent.pid ;;
  reload-agent) kill -HUP "$(cat agent.pid)" ;;
  haproxy)
    if [ -s haproxy.pid ]; then kill -USR2 "$(cat haproxy.pid)"
    else setsid {haproxy} -W -S {root}/run/master.sock -f {root}/etc/haproxy.cfg >>haproxy.log 2>&1 </dev/null & echo $! >haproxy.pid; fi ;;
esac
"""


class Host:
    """A folder in which a host's files and processes live."""

    def __init__(self, root, standin, agent):
        self.root, self.standin = root, standin
        self.ports = dict(zip(["write", "read", "health", "check", "http"], free_ports(5)))
        for folder in ("etc", "run", "state"):
            (root / folder).mkdir(parents=True)
        supervisor = root / "supervisor"
        supervisor.write_text(SUPERVISOR.format(root=root, haproxy=tool("haproxy")))
        supervisor.chmod(0o755)
        self.vars = self.variables(agent)

    def variables(self, agent):
        root, ports, standin = self.root, self.ports, self.standin
        instances = [
            {"name": s["name"], "endpoint": f"{s['endpoint']}:{standin['port']}", "connect": s["connect"]}
            for s in standin["servers"]
        ]
        databases = [{"name": "orders", "engine": "postgresql", "user": "lb_agent", "database_name": standin["database"],
                      "ca_file": standin["ca_file"], "instances": instances, "probe_interval": "2s"}]
        servers = {s["name"]: s["name"] for s in standin["servers"]}
        pools = [{"name": f"orders_{pool}", "database": "orders", "role": role, "port": ports[pool]}
                 for pool, role in (("write", "writer"), ("read", "reader"))]
        return {
            "balancer_proxy": "haproxy", "balancer_drain_seconds": 2, "balancer_return_seconds": 1, "ansible_become": False,
            "agent_binary": agent, "agent_bin_dir": f"{root}/bin", "agent_config_dir": f"{root}/etc",
            "agent_state_dir": f"{root}/state", "agent_user": "root", "agent_group": "root", "agent_manage_user": False,
            "agent_service": "none", "agent_hand_over_argv": [f"{root}/supervisor", "agent"],
            "agent_reload_argv": [f"{root}/supervisor", "reload-agent"],
            "agent_ready_url": f"http://127.0.0.1:{ports['http']}/readyz",
            "agent_config": {
                "databases": databases,
                "proxies": [{
                    "haproxy": {"socket": f"{root}/run/admin.sock", "master": f"{root}/run/master.sock", "state_file": f"{root}/server-state"},
                    "backends": {pool["name"]: {"database": "orders", "role": pool["role"], "servers": servers} for pool in pools},
                }],
                "listen": {"agent_check": f"127.0.0.1:{ports['check']}", "http": f"127.0.0.1:{ports['http']}", "control": f"{root}/run/control.sock"},
                "state_dir": f"{root}/state",
            },
            "haproxy_databases": databases, "haproxy_pools": pools, "haproxy_config_file": f"{root}/etc/haproxy.cfg",
            "haproxy_state_file": f"{root}/server-state", "haproxy_socket": f"{root}/run/admin.sock", "haproxy_socket_group": "",
            "haproxy_maxconn": 500, "haproxy_bind": "127.0.0.1", "haproxy_health_bind": f"127.0.0.1:{ports['health']}",
            "haproxy_agent_check": f"127.0.0.1:{ports['check']}", "haproxy_agent_http": f"127.0.0.1:{ports['http']}",
            "haproxy_program": tool("haproxy"), "haproxy_package": "", "haproxy_service": "none",
            "haproxy_reload_argv": [f"{root}/supervisor", "haproxy"],
        }

    def pid(self, program):
        return int((self.root / f"{program}.pid").read_text())

    def query(self, pool, sql):
        return login(self.standin, self.ports[pool], pool, sql)

    def stop(self):
        for program in ("agent", "haproxy"):
            try:
                os.kill(self.pid(program), signal.SIGTERM)
            except (OSError, ValueError):
                pass


class Fleet:
    def __init__(self, folder, standin, agent):
        # Short paths: a socket's has at most 107 characters.
        self.folder = folder
        self.hosts = {f"lb{n}": Host(folder / f"lb{n}", standin, agent) for n in (1, 2, 3)}
        (folder / "collections/ansible_collections/rds_lb_agent").mkdir(parents=True)
        (folder / "collections/ansible_collections/rds_lb_agent/balancer").symlink_to(COLLECTION)
        environment = dict(os.environ, **dict(standin["environment"]))
        self.environment = environment | {
            "ANSIBLE_COLLECTIONS_PATH": str(folder / "collections"), "ANSIBLE_NOCOLOR": "1", "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"), "ANSIBLE_LOCALHOST_WARNING": "false", "ANSIBLE_HOME": str(folder / "home"),
            "PATH": f"{VENV}:{os.environ['PATH']}",
        }

    def play(self, playbook, *options, succeeds=True):
        """Runs a playbook. The number of changes of each host, and the output."""
        common = {"ansible_connection": "local", "ansible_python_interpreter": str(VENV / "python")}
        inventory = {"balancers": {"hosts": {name: host.vars | common for name, host in self.hosts.items()}}}
        path = self.folder / "inventory.yml"
        path.write_text(yaml.safe_dump(inventory))
        done = subprocess.run([VENV / "ansible-playbook", "-i", path, PLAYBOOKS / playbook, *options],
                              env=self.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert (done.returncode == 0) == succeeds, done.stdout
        changes = re.findall(r"^(\S+) +: ok=\d+ +changed=(\d+)", done.stdout, re.M)
        return {name: int(count) for name, count in changes}, done.stdout


@pytest.fixture(scope="module")
def fleet(standin, agent, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fleet")
    fleet = Fleet(folder, standin, agent)
    try:
        yield fleet
    finally:
        for host in fleet.hosts.values():
            host.stop()


def test_ansible_lint_finds_nothing_in_the_production_profile(tmp_path):
    target = tmp_path / "ansible_collections/rds_lb_agent/balancer"
    shutil.copytree(COLLECTION, target)
    run(VENV / "ansible-lint", "--offline", "--profile", "production", "--strict", cwd=target,
        env={**os.environ, "PATH": f"{VENV}:{os.environ['PATH']}", "ANSIBLE_COLLECTIONS_PATH": str(tmp_path), "ANSIBLE_HOME": str(tmp_path / "home")})


def test_the_collection_builds_and_documents_its_roles(tmp_path):
    environment = {**os.environ, "ANSIBLE_HOME": str(tmp_path / "home"), "ANSIBLE_COLLECTIONS_PATH": str(tmp_path)}
    run(VENV / "ansible-galaxy", "collection", "build", COLLECTION, "--output-path", tmp_path, env=environment)
    package = next(tmp_path.glob("*.tar.gz"))
    run(VENV / "ansible-galaxy", "collection", "install", package, "-p", tmp_path, "--offline", env=environment)
    installed = tmp_path / "ansible_collections/rds_lb_agent/balancer"
    # A file that the repository keeps elsewhere comes along.
    assert "[Service]" in (installed / "roles/agent/files/rds-lb-agent.service").read_text()
    for role in ("agent", "haproxy", "envoy"):
        assert f"{role}_" in run(VENV / "ansible-doc", "-t", "role", f"rds_lb_agent.balancer.{role}", env=environment)


def test_the_drop_in_for_reloads_has_the_paths_of_the_role():
    role = COLLECTION / "roles/haproxy"
    defaults = yaml.safe_load((role / "defaults/main.yml").read_text())
    template = jinja2.Template((role / "templates/rds-lb-agent.conf.j2").read_text(), keep_trailing_newline=True)
    assert template.render(defaults) == (DEPLOY / "systemd/haproxy.service.d/rds-lb-agent.conf").read_text()
    paths = {"haproxy_socket": "/a/socket", "haproxy_state_file": "/b/state", "haproxy_program": "/c/haproxy", "agent_bin_dir": "/d"}
    text = template.render(defaults | paths)
    assert "ExecReload=-/d/rds-lb-agent server-state --socket /a/socket --file /b/state\nExecReload=/c/haproxy " in text


def test_a_first_run_serves_clients_and_a_second_changes_nothing(fleet):
    changes, _ = fleet.play("site.yml")
    assert all(count > 0 for count in changes.values()) and len(changes) == 3
    for host in fleet.hosts.values():
        until(lambda: host.query("write", "SELECT pg_is_in_recovery()") == "f", "the write port leads to the writer")
        until(lambda: host.query("read", "SELECT pg_is_in_recovery()") == "t", "the read port leads to the replica")
        assert status(f"http://127.0.0.1:{host.ports['health']}/healthz") == 200
    changes, output = fleet.play("site.yml", "--diff", "--limit", "lb1")
    assert changes == {"lb1": 0}, output


def test_check_mode_shows_the_change_and_makes_none(fleet):
    host = fleet.hosts["lb1"]
    before = (host.root / "etc/config.yaml").read_text()
    host.vars["agent_config"]["sessions"] = {"max_age": "13m"}
    changes, output = fleet.play("site.yml", "--check", "--diff", "--limit", "lb1")
    assert changes["lb1"] >= 1 and "+  max_age: 13m" in output, output
    assert (host.root / "etc/config.yaml").read_text() == before


def test_a_changed_configuration_is_reloaded_and_nothing_restarts(fleet):
    host = fleet.hosts["lb1"]
    pids = [host.pid("agent"), host.pid("haproxy")]
    host.vars["agent_config"]["sessions"] = {"max_age": "12m"}
    host.vars["haproxy_maxconn"] = 600
    changes, output = fleet.play("site.yml", "--limit", "lb1")
    assert "RUNNING HANDLER [rds_lb_agent.balancer.agent : Reload the agent]" in output
    assert [host.pid("agent"), host.pid("haproxy")] == pids
    for pid in pids:
        os.kill(pid, 0)
    until(lambda: "configuration" in (host.root / "agent.log").read_text(), "the agent logs the reload")
    assert host.query("write", "SELECT pg_is_in_recovery()") == "f"
    assert fleet.play("site.yml", "--limit", "lb1")[0] == {"lb1": 0}


@pytest.mark.parametrize("key,value,file", [
    ("agent_config", {"databases": [], "nonsense": 1}, "config.yaml"),
    ("haproxy_extra_global", "nonsense 1", "haproxy.cfg"),
])
def test_a_wrong_configuration_fails_and_changes_nothing(fleet, key, value, file):
    host = fleet.hosts["lb1"]
    path = host.root / "etc" / file
    before, good = path.read_text(), host.vars.get(key)
    host.vars[key] = value
    try:
        _, output = fleet.play("site.yml", "--limit", "lb1", succeeds=False)
    finally:
        host.vars[key] = good if good is not None else ""
    assert "failed to validate" in output, output
    assert path.read_text() == before


def test_a_rolling_upgrade_fails_no_login(fleet, agent):
    """Clients choose a host whose health port answers, as behind a load balancer."""
    newer = fleet.folder / "rds-lb-agent"
    newer.write_bytes(Path(agent).read_bytes() + b"\n")
    newer.chmod(0o755)
    pids = {name: host.pid("agent") for name, host in fleet.hosts.items()}
    for host in fleet.hosts.values():
        host.vars["agent_binary"] = str(newer)
        host.vars["haproxy_maxconn"] = 700
    logins, failed, closed, ends = [], [], set(), threading.Event()

    def clients():
        while not ends.is_set():
            for name, host in fleet.hosts.items():
                if status(f"http://127.0.0.1:{host.ports['health']}/healthz") != 200:
                    closed.add(name)
                    continue
                for pool, wanted in (("write", "f"), ("read", "t")):
                    answer = host.query(pool, "SELECT pg_is_in_recovery()")
                    (logins if answer == wanted else failed).append((name, pool, answer))

    load = threading.Thread(target=clients)
    load.start()
    try:
        _, output = fleet.play("upgrade.yml")
    finally:
        ends.set()
        load.join()
    assert not failed, failed
    waits = output.split("TASK [Wait for the load balancer in front]")[1:]
    assert [name for text in waits for name in re.findall(r"^ok: \[(\w+)\]", text.split("TASK [")[0], re.M)] == ["lb1", "lb2"], output
    assert len(logins) > 20 and closed == set(fleet.hosts)
    for name, host in fleet.hosts.items():
        assert host.pid("agent") != pids[name]
        assert (host.root / "bin/rds-lb-agent").read_bytes() == newer.read_bytes()
        assert status(f"http://127.0.0.1:{host.ports['health']}/healthz") == 200


def test_a_failed_upgrade_stops_at_the_first_host_and_opens_its_health_port(fleet):
    host = fleet.hosts["lb1"]
    good = host.vars.get("haproxy_extra_global", "")
    host.vars["haproxy_extra_global"] = "nonsense 1"
    try:
        changes, output = fleet.play("upgrade.yml", succeeds=False)
    finally:
        host.vars["haproxy_extra_global"] = good
    assert "lb2" not in changes, output
    assert status(f"http://127.0.0.1:{host.ports['health']}/healthz") == 200


def test_the_fail_closed_recipe_is_valid_and_needs_a_fallback(fleet, haproxies):
    host = fleet.hosts["lb3"]
    host.vars["haproxy_recipe"] = "fail_closed"
    _, output = fleet.play("site.yml", "--limit", "lb3", succeeds=False)
    assert "needs a fallback" in output
    for pool in host.vars["haproxy_pools"]:
        pool["fallback"] = f"127.0.0.1:{fleet.hosts['lb1'].ports[pool['name'].removeprefix('orders_')]}"
    host.vars["haproxy_down_file"] = f"{host.root}/etc/all-down.state"
    fleet.play("site.yml", "--limit", "lb3")
    for haproxy in haproxies:
        run(haproxy, "-c", "-f", host.root / "etc/haproxy.cfg")
    until(lambda: host.query("write", "SELECT pg_is_in_recovery()") == "f", "the write port leads to the writer")


def test_envoy_accepts_the_roles_configuration_and_a_second_run_changes_nothing(fleet, envoy, tmp_path):
    host = fleet.hosts["lb2"]
    host.vars |= {
        "balancer_proxy": "envoy", "envoy_databases": host.vars["haproxy_databases"],
        "envoy_pools": [pool | {"fallback": "db.example.org:5432"} for pool in host.vars["haproxy_pools"]],
        "envoy_config_file": f"{host.root}/etc/envoy.yaml", "envoy_run_dir": f"{host.root}/run/envoy", "envoy_log_dir": f"{host.root}/log",
        "envoy_program": envoy, "envoy_user": "root", "envoy_group": "root", "envoy_service": "none",
    }
    _, output = fleet.play("site.yml", "--limit", "lb2")
    assert "Envoy reads it at its next start" in output
    assert fleet.play("site.yml", "--limit", "lb2")[0] == {"lb2": 0}
    host.vars["envoy_bind"] = "nonsense"
    _, output = fleet.play("site.yml", "--limit", "lb2", succeeds=False)
    assert "failed to validate" in output
