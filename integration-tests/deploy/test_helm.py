"""The chart: rendered by Helm over a matrix of values, validated against Kubernetes' schemas, and its configurations
checked by HAProxy, Envoy and the agent themselves."""

import itertools
import re
import subprocess

import kubernetes_validate
import pytest
import yaml
from conftest import DEPLOY, ROOT, run, tool

CHART = DEPLOY / "helm/rds-lb-agent"
OLDEST, NEWEST = "1.29.0", "1.34.0"
# Of the Prometheus operator; Kubernetes has no schema for them.
CUSTOM = {"ServiceMonitor", "PodMonitor", "PrometheusRule"}


@pytest.fixture(scope="session")
def helm():
    return tool("helm", ROOT / "target/helm/helm")


def render(helm, mode, *settings, kubernetes=NEWEST):
    values = CHART / f"ci/{mode}.yaml"
    options = [option for setting in settings for option in ("--set", setting)]
    text = run(helm, "template", "orders", CHART, "-f", values, "--kube-version", kubernetes, *options, stderr=subprocess.DEVNULL)
    return [document for document in yaml.safe_load_all(text) if document]


def refused(helm, mode, *settings, kubernetes=NEWEST):
    options = [option for setting in settings for option in ("--set", setting)]
    done = subprocess.run(
        [helm, "template", "orders", str(CHART), "-f", str(CHART / f"ci/{mode}.yaml"), "--kube-version", kubernetes, *options],
        text=True, capture_output=True,
    )
    assert done.returncode != 0, "the values were accepted"
    return done.stderr


def validate(documents, kubernetes):
    for document in documents:
        if document["kind"] not in CUSTOM:
            kubernetes_validate.validate(document, kubernetes.rsplit(".", 1)[0], strict=True)


def one(documents, kind, name=""):
    found = [d for d in documents if d["kind"] == kind and d["metadata"]["name"].endswith(name)]
    assert len(found) == 1, f"{len(found)} of {kind} {name}"
    return found[0]


def workload(documents):
    return next(d for d in documents if d["kind"] in ("Deployment", "DaemonSet"))


def pod(documents):
    return workload(documents)["spec"]["template"]["spec"]


def containers(documents):
    spec = pod(documents)
    return {c["name"]: c for c in [*spec.get("initContainers", []), *spec["containers"]]}


def check_configurations(documents, mode, tmp_path, agent, haproxies, envoy):
    for document in documents:
        for name, text in document.get("data", {}).items() if document["kind"] == "ConfigMap" else []:
            # The folders of the pod.
            for folder in (f"/run/{mode}/", f"/etc/{mode}/"):
                text = text.replace(folder, f"{tmp_path}/")
            (tmp_path / name).write_text(text)
    run(agent, "validate", "--config", tmp_path / "config.yaml")
    if mode == "haproxy":
        for haproxy in haproxies:
            output = run(haproxy, "-c", "-f", tmp_path / "haproxy.cfg").splitlines()
            # The names of the examples exist nowhere, and servers start DOWN from the state file.
            expected = ("could not resolve address", "changed from server-state")
            assert not [line for line in output if "WARNING" in line and not any(part in line for part in expected)]
    if mode == "envoy":
        run(envoy, "--mode", "validate", "-c", tmp_path / "envoy.yaml", "--log-level", "warn")


def only_watch(routing):
    return ["sessions.mode=observe"] if routing == "observe" else []


MATRIX = list(itertools.product(
    ["haproxy", "envoy", "agent"], ["Deployment", "DaemonSet"], ["native", "classic"], ["observe", "act"], [OLDEST, NEWEST],
))


@pytest.mark.parametrize("mode,kind,sidecar,routing,kubernetes", MATRIX)
def test_every_combination_is_valid(helm, tmp_path, agent, haproxies, envoy, mode, kind, sidecar, routing, kubernetes):
    documents = render(helm, mode, f"kind={kind}", f"sidecar={sidecar}", f"routing={routing}", *only_watch(routing), kubernetes=kubernetes)
    validate(documents, kubernetes)
    # The configurations do not depend on the version.
    if kubernetes == NEWEST:
        check_configurations(documents, mode, tmp_path, agent, haproxies, envoy)


EXTRAS = [
    ("haproxy", ["networkPolicy.enabled=false", "podDisruptionBudget.enabled=false", "metrics.podMonitor.enabled=false"]),
    ("haproxy", ["metrics.serviceMonitor.enabled=true", "metrics.dashboard.enabled=true"]),
    ("haproxy", ["service.type=LoadBalancer", "service.annotations.a=b", "service.loadBalancerClass=service.k8s.aws/nlb"]),
    ("haproxy", ["haproxy.extraGlobal=nbthread 2", "haproxy.extraDefaults=option logasap"]),
    ("haproxy", ["agent.caConfigMap=ca", "agent.extraEnv[0].name=A", "agent.extraEnv[0].value=b", "aws.region=eu-west-1"]),
    ("haproxy", ["tolerations[0].operator=Exists", "nodeSelector.a=b", "priorityClassName=system-cluster-critical"]),
    ("haproxy", ["serviceAccount.create=false", "serviceAccount.name=other", "imagePullSecrets[0].name=s"]),
    ("haproxy", ["agent.reload=rollout", "image.tag=x", "podLabels.a=b", "podAnnotations.a=b"]),
    ("envoy", ["networkPolicy.enabled=true", "networkPolicy.restrictEgress=true", "metrics.podMonitor.enabled=true"]),
    ("agent", ["networkPolicy.enabled=true"]),
    ("agent", ["kind=Deployment", "agent.state.type=claim", "agent.state.claim=state"]),
]


@pytest.mark.parametrize("mode,settings", EXTRAS, ids=lambda value: value if isinstance(value, str) else value[0])
def test_every_option_is_valid(helm, tmp_path, agent, haproxies, envoy, mode, settings):
    documents = render(helm, mode, *settings)
    validate(documents, NEWEST)
    check_configurations(documents, mode, tmp_path, agent, haproxies, envoy)


def test_helm_lint_finds_nothing(helm):
    for values in sorted((CHART / "ci").glob("*.yaml")):
        run(helm, "lint", "--strict", CHART, "-f", values)


def test_kubernetes_1_27_takes_the_classic_form_and_refuses_the_native_one(helm):
    documents = render(helm, "haproxy", "sidecar=classic", kubernetes="1.27.0")
    validate(documents, "1.27.0")
    assert containers(documents)["haproxy"]["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "5"]
    assert "needs Kubernetes 1.29" in refused(helm, "haproxy", kubernetes="1.27.0")


@pytest.mark.parametrize("settings,message", [
    (["mode=nginx"], "mode"),
    (["unknown=1"], "unknown"),
    (["pools[0].database=nowhere"], "there is no database nowhere"),
    (["pools[1].port=5432"], "port 5432 is another pool's"),
    (["pools[1].name=orders_write"], "two pools have the name"),
    (["pools[1].port=7878"], "is used by the agent"),
    (["pools[0].fallback=null"], "fallback"),
    (["pools=null"], "pools is empty"),
    (["databases[0].instances[0].endpoint=no-port"], "endpoint"),
    (["aws.roleArn=role"], "roleArn"),
    (["agent.state.type=claim"], "needs the name of a PersistentVolumeClaim"),
    (["agent.state.type=claim", "agent.state.claim=x"], "must not share a state directory"),
    (["config.proxies[0].haproxy.socket=/x"], "config.proxies is for mode agent"),
    (["routing=observe"], "needs sessions.mode observe"),
    (["mode=agent"], "set config.proxies"),
])
def test_wrong_values_are_refused_with_the_reason(helm, settings, message):
    assert message in refused(helm, "haproxy", *settings)


@pytest.mark.parametrize("mode", ["haproxy", "envoy", "agent"])
@pytest.mark.parametrize("sidecar", ["native", "classic"])
def test_no_probe_asks_about_a_database(helm, mode, sidecar):
    for name, container in containers(render(helm, mode, f"sidecar={sidecar}")).items():
        probes = {key: value["httpGet"]["path"] for key, value in container.items() if key.endswith("Probe")}
        if name == "agent":
            assert probes == {}
        else:
            assert probes == dict.fromkeys(["startupProbe", "readinessProbe", "livenessProbe"], "/healthz")


@pytest.mark.parametrize("mode", ["haproxy", "envoy", "agent"])
@pytest.mark.parametrize("sidecar", ["native", "classic"])
def test_an_agent_that_exits_does_not_end_its_container(helm, mode, sidecar):
    container = containers(render(helm, mode, f"sidecar={sidecar}"))["agent"]
    assert container["args"][:2] == ["run", "--restart"]
    assert "limits" not in container["resources"]


@pytest.mark.parametrize("mode", ["haproxy", "envoy", "agent"])
def test_containers_have_no_rights(helm, mode):
    documents = render(helm, mode)
    assert pod(documents)["automountServiceAccountToken"] is False
    assert pod(documents)["securityContext"]["runAsNonRoot"] is True
    for container in containers(documents).values():
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        }


def test_the_native_agent_starts_first_and_the_classic_one_beside_the_proxy(helm):
    native = pod(render(helm, "haproxy", "sidecar=native"))
    assert [c["name"] for c in native["containers"]] == ["haproxy"]
    assert native["initContainers"][0]["restartPolicy"] == "Always"
    classic = pod(render(helm, "haproxy", "sidecar=classic"))
    assert [c["name"] for c in classic["containers"]] == ["haproxy", "agent"]
    assert "initContainers" not in classic


def listen(documents):
    return yaml.safe_load(one(documents, "ConfigMap", "-agent")["data"]["config.yaml"])["listen"]


@pytest.mark.parametrize("setting", ["service", "serviceMonitor.enabled", "podMonitor.enabled"])
def test_the_agents_http_port_is_open_to_other_hosts_only_where_it_is_scraped(helm, setting):
    none = [f"metrics.{name}=false" for name in ("service", "serviceMonitor.enabled", "podMonitor.enabled")]
    closed = render(helm, "haproxy", *none)
    assert listen(closed) == {"agent_check": "127.0.0.1:7878", "http": "127.0.0.1:7879"}
    assert 7879 not in [port["port"] for rule in one(closed, "NetworkPolicy")["spec"]["ingress"] for port in rule["ports"]]
    documents = render(helm, "haproxy", *none, f"metrics.{setting}=true", "networkPolicy.monitoring[0].podSelector.matchLabels.a=b")
    assert listen(documents)["http"] == "0.0.0.0:7879" and listen(documents)["allow_remote"] is True
    rule = next(rule for rule in one(documents, "NetworkPolicy")["spec"]["ingress"] if {"protocol": "TCP", "port": 7879} in rule["ports"])
    assert rule["from"] == [{"podSelector": {"matchLabels": {"a": "b"}}}]
    validate(documents, NEWEST)


def test_selectors_match_the_pods_and_not_the_test_pod(helm):
    documents = render(helm, "haproxy", "metrics.serviceMonitor.enabled=true")
    labels = workload(documents)["spec"]["template"]["metadata"]["labels"]
    test = one(documents, "Pod")["metadata"]["labels"]
    selectors = [d["spec"]["selector"] for d in documents if d["kind"] == "Service"]
    selectors += [d["spec"][key]["matchLabels"] for d in documents for key in ("selector", "podSelector")
                  if isinstance(d.get("spec", {}).get(key), dict) and "matchLabels" in d["spec"][key] and d["kind"] != "ServiceMonitor"]
    assert len(selectors) == 6
    for selector in selectors:
        assert selector.items() <= labels.items()
        assert not selector.items() <= test.items()
    monitor = one(documents, "ServiceMonitor")["spec"]["selector"]["matchLabels"]
    matched = [d["metadata"]["name"] for d in documents if d["kind"] == "Service" and monitor.items() <= d["metadata"]["labels"].items()]
    assert matched == ["orders-rds-lb-agent-metrics"]


def test_every_object_has_the_recommended_labels(helm):
    wanted = {f"app.kubernetes.io/{key}" for key in ("name", "instance", "version", "component", "part-of", "managed-by")}
    for document in render(helm, "haproxy", "metrics.serviceMonitor.enabled=true", "metrics.dashboard.enabled=true"):
        assert wanted <= document["metadata"]["labels"].keys(), document["kind"]


def checksums(documents):
    annotations = workload(documents)["spec"]["template"]["metadata"]["annotations"]
    return {key: value for key, value in annotations.items() if key.startswith("checksum/")}


def test_only_a_change_of_the_proxys_configuration_replaces_the_pods(helm):
    before = checksums(render(helm, "haproxy"))
    assert checksums(render(helm, "haproxy", "sessions.max_age=10m")) == before
    assert checksums(render(helm, "haproxy", "haproxy.maxconn=5")) != before
    rollout = checksums(render(helm, "haproxy", "agent.reload=rollout"))
    assert checksums(render(helm, "haproxy", "agent.reload=rollout", "sessions.max_age=10m")) != rollout


def test_irsa_sets_the_annotation_and_pod_identity_needs_none(helm):
    account = one(render(helm, "haproxy"), "ServiceAccount")
    assert account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"].endswith(":role/rds-lb-agent")
    assert "annotations" not in one(render(helm, "envoy"), "ServiceAccount")["metadata"]


def test_with_routing_observe_clients_use_the_fallback(helm):
    text = one(render(helm, "haproxy", "routing=observe", *only_watch("observe")), "ConfigMap", "-haproxy")["data"]["haproxy.cfg"]
    write = text.split("\nbackend orders_write\n")[1].split("frontend")[0]
    assert re.search(r"^ *server fallback \S+ resolvers", write, re.M)
    assert "default-server backup" in write and "httpchk" not in write


def test_the_pod_outlives_its_sessions(helm):
    for mode, sleep in (("haproxy", 5), ("envoy", 305)):
        documents = render(helm, mode)
        assert containers(documents)[mode]["lifecycle"]["preStop"]["sleep"]["seconds"] == sleep
        assert pod(documents)["terminationGracePeriodSeconds"] > 305


def test_the_notes_name_what_is_missing(helm):
    def notes(*options):
        return run(helm, "install", "orders", CHART, "--dry-run=client", *options, stderr=subprocess.DEVNULL)

    assert "No IAM role is set" in notes("-f", CHART / "ci/envoy.yaml")
    assert "No IAM role is set" not in notes("-f", CHART / "ci/haproxy.yaml")
    assert "Nothing scrapes the agent" in notes("-f", CHART / "ci/agent.yaml")
    assert "Nothing scrapes the agent" not in notes("-f", CHART / "ci/haproxy.yaml")
    assert "WARNING: one replica" in notes("-f", CHART / "ci/haproxy.yaml", "--set", "replicas=1")
