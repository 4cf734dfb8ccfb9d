"""Pods of the chart, played on this machine: the rendered commands run with the rendered mounts, user and rights, in mount
namespaces of their own, and the rendered probes are asked. The network is the machine's, so ports are the test's.

Not run here: a kubelet, and the images."""

import os
import signal
import subprocess
import threading
import time

import pytest
import yaml
from conftest import free_ports, login, run, status, tool, until
from test_helm import CHART, containers, pod

# Runs a command with mounts over a copy-on-write /etc, /run and /var/lib.
CONTAINER = """set -e
layers=$1; shift
for folder in etc var/lib; do
  upper="$layers/upper/$folder" scratch="$layers/scratch/$folder"
  mkdir -p "$upper" "$scratch"
  mount -t overlay overlay -o "lowerdir=/$folder,upperdir=$upper,workdir=$scratch" "/$folder"
done
mount -t tmpfs tmpfs /run
while [ "$1" != -- ]; do mkdir -p "$2"; mount --bind "$1" "$2"; shift 2; done; shift
exec setpriv --reuid 65532 --regid 65532 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
"""


class Pod:
    def __init__(self, folder, standin, helm, agent, proxies, mode, **settings):
        self.folder, self.mode, self.processes = folder, mode, {}
        self.programs = {"haproxy": proxies["haproxy"], "envoy": proxies["envoy"], "agent": agent}
        ports = dict(zip(["write", "read", "agentHttp", "agentCheck", "proxyHealth"], free_ports(5)))
        self.ports = ports
        servers = standin["servers"]
        values = {
            "mode": mode, "routing": "act", "ports": {name: ports[name] for name in ("agentHttp", "agentCheck", "proxyHealth")},
            "databases": [{
                "name": "orders", "engine": "postgresql", "user": "lb_agent", "database_name": standin["database"], "probe_interval": "2s",
                "ca_file": "/etc/rds-lb-agent-ca/ca.pem",
                "instances": [{"name": s["name"], "endpoint": f"{s['endpoint']}:{standin['port']}", "connect": s["connect"]} for s in servers],
            }],
            # Without a name server, the fallback is an address.
            "pools": [
                {"name": "orders_write", "database": "orders", "role": "writer", "port": ports["write"], "fallback": servers[0]["connect"]},
                {"name": "orders_read", "database": "orders", "role": "reader", "port": ports["read"], "fallback": servers[1]["connect"]},
            ],
            "agent": {"caConfigMap": "ca", "extraEnv": [{"name": n, "value": v} for n, v in standin["environment"]]},
            "haproxy": {"maxconn": 200}, "envoy": {"concurrency": 1}, **settings,
        }
        folder.mkdir()
        (folder / "values.yaml").write_text(yaml.safe_dump(values))
        text = run(helm, "template", "orders", CHART, "-f", folder / "values.yaml", "--kube-version", "1.34.0", stderr=subprocess.DEVNULL)
        self.documents = [d for d in yaml.safe_load_all(text) if d]
        self.volumes = {volume["name"]: self.volume(volume, standin) for volume in pod(self.documents)["volumes"]}
        self.containers = containers(self.documents)

    def volume(self, volume, standin):
        path = self.folder / "volumes" / volume["name"]
        path.mkdir(parents=True)
        if name := volume.get("configMap", {}).get("name"):
            if name == "ca":
                data = {"ca.pem": open(standin["ca_file"]).read()}
            else:
                data = next(d["data"] for d in self.documents if d["kind"] == "ConfigMap" and d["metadata"]["name"] == name)
            for file, text in data.items():
                (path / file).write_text(text)
        else:
            os.chown(path, 65532, 65532)
        return path

    def start(self, name):
        container = self.containers[name]
        mounts = [part for mount in container["volumeMounts"] for part in (self.volumes[mount["name"]], mount["mountPath"])]
        # Its folder may be closed to other users.
        folder, file = os.path.split(self.programs[name])
        mounts += [folder, "/run/program"]
        program = [f"/run/program/{file}", *container.get("command", ["entrypoint"])[1:], *container.get("args", [])]
        work = self.folder / f"{name}-root"
        work.mkdir(exist_ok=True)
        log = (self.folder / f"{name}.log").open("a")
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"} | {e["name"]: e["value"] for e in container.get("env", [])}
        self.processes[name] = subprocess.Popen(
            ["unshare", "--mount", "bash", "-c", CONTAINER, "container", work, *mounts, "--", *program], stdout=log, stderr=log, env=environment, start_new_session=True)

    def start_all(self):
        for name in ("agent", self.mode):
            self.start(name)
        until(self.ready, f"the pod is ready: {self.logs()}")

    def probe(self, name, probe):
        ports = {port["name"]: port["containerPort"] for port in self.containers[name]["ports"]}
        request = self.containers[name][probe]["httpGet"]
        return status(f"http://127.0.0.1:{ports[request['port']]}{request['path']}") == 200

    def ready(self):
        return self.probe(self.mode, "readinessProbe")

    def agent_alive(self):
        return status(f"http://127.0.0.1:{self.ports['agentHttp']}/livez") == 200

    def login(self, standin, pool):
        return login(standin, self.ports[pool], pool, "SELECT pg_is_in_recovery()")

    def logs(self):
        return "".join(f"{name}: {(self.folder / f'{name}.log').read_text()[-1500:]}\n" for name in self.processes)

    def stop(self, name, how=signal.SIGTERM):
        process = self.processes.pop(name)
        if how == signal.SIGKILL:
            # The end of a container's first process ends the others.
            os.killpg(process.pid, how)
        else:
            process.send_signal(how)
        return process.wait(60)

    def end(self):
        for name in list(self.processes):
            self.stop(name, signal.SIGKILL if name == "envoy" else signal.SIGTERM)


@pytest.fixture
def play(standin, agent, haproxies, envoy, tmp_path):
    if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "true"]).returncode != 0:
        pytest.skip("needs root and mount namespaces")
    for folder in (tmp_path, *list(tmp_path.parents)[:3]):
        folder.chmod(0o755)
    helm = tool("helm", *[path for path in [CHART.parents[2] / "target/helm/helm"] if path.exists()])
    pods = []

    def new(mode, **settings):
        pods.append(Pod(tmp_path / f"pod{len(pods)}", standin, helm, agent, {"haproxy": haproxies[0], "envoy": envoy}, mode, **settings))
        return pods[-1]

    yield new
    for one in pods:
        one.end()


@pytest.mark.parametrize("mode", ["haproxy", "envoy"])
def test_a_pod_serves_clients_with_and_without_its_agent(play, standin, mode):
    played = play(mode)
    played.start_all()
    until(lambda: played.login(standin, "write") == "f", "the write port leads to the writer")
    until(lambda: played.login(standin, "read") == "t", "the read port leads to the replica")
    assert played.agent_alive() and played.probe(mode, "livenessProbe"), played.logs()
    assert status(f"http://127.0.0.1:{played.ports['proxyHealth']}/metrics") == 200
    # The agent dies: no client suffers, and no probe of the proxy fails.
    played.stop("agent", signal.SIGKILL)
    end = time.monotonic() + 6
    while time.monotonic() < end:
        assert played.login(standin, "write") == "f" and played.login(standin, "read") == "t", played.logs()
        assert played.ready() and played.probe(mode, "livenessProbe")
    played.start("agent")
    until(played.agent_alive, "the agent is alive again")


def test_an_agent_that_cannot_start_does_not_end_its_container(play, standin):
    played = play("haproxy")
    played.start_all()
    until(played.agent_alive, "the agent runs")
    config, log = played.volumes["agent-config"] / "config.yaml", played.folder / "agent.log"
    good, container = config.read_text(), played.processes["agent"]
    config.write_text(good + "nonsense: 1\n")
    child = open(f"/proc/{container.pid}/task/{container.pid}/children").read()
    os.kill(int(child), signal.SIGKILL)
    until(lambda: log.read_text().count("exit status: 64") >= 2, "the agent is started again after exit code 64")
    assert not played.agent_alive()
    assert container.poll() is None, "the end of the container would make the pod not Ready"
    assert played.ready() and played.login(standin, "write") == "f", played.logs()
    config.write_text(good)
    until(played.agent_alive, "the agent runs with the corrected configuration")
    assert played.stop("agent") == 0


def test_a_pod_serves_clients_before_its_agent_runs(play, standin):
    played = play("haproxy")
    played.start("haproxy")
    until(played.ready, "HAProxy is ready without an agent")
    assert played.login(standin, "write") == "f" and played.login(standin, "read") == "t", played.logs()


def test_a_rolling_update_fails_no_login(play, standin):
    """The new pod is ready before the old one stops; then the Service sends it all new clients, and HAProxy ends by its stop signal."""
    old, new = play("haproxy"), play("haproxy", shutdown={"delay": 1, "sessions": 10})
    service, logins, failed, ends = [old], [], [], threading.Event()
    old.start_all()
    until(lambda: old.login(standin, "write") == "f", "the old pod serves")

    def clients():
        while not ends.is_set():
            for pool, wanted in (("write", "f"), ("read", "t")):
                answer = service[0].login(standin, pool)
                (logins if answer == wanted else failed).append(answer)

    load = [threading.Thread(target=clients) for _ in range(2)]
    for client in load:
        client.start()
    try:
        new.start_all()
        service[0] = new
        # preStop.
        time.sleep(old.containers["haproxy"]["lifecycle"]["preStop"]["sleep"]["seconds"])
        assert old.stop("haproxy", signal.SIGUSR1) == 0
        assert old.stop("agent") == 0
        before = len(logins)
        until(lambda: len(logins) >= before + 10, "logins at the new pod")
    finally:
        ends.set()
        for client in load:
            client.join()
    assert not failed, failed[:3]
