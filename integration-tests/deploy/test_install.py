"""docs/INSTALL.md: the path "from nothing" makes configurations that HAProxy and the agent accept."""

import re

from conftest import DEPLOY, ROOT, run


def script():
    page = (ROOT / "docs/INSTALL.md").read_text()
    return re.search(r"^## From nothing\n.*?```sh\n(.*?)```", page, re.M | re.S)[1]


def test_from_nothing_makes_valid_configurations(tmp_path, agent, haproxies):
    text = script().split("sudo mv ")[0]
    text = re.sub(r"^sudo apt install.*$", "", text, flags=re.M)
    text = text.replace("sudo tee", "tee").replace("/etc/", f"{tmp_path}/").replace("/usr/share/doc/rds-lb-agent/examples", str(DEPLOY))
    for folder in ("rds-lb-agent", "haproxy"):
        (tmp_path / folder).mkdir()
    run("bash", "-euc", text)
    run(agent, "validate", "--config", tmp_path / "rds-lb-agent/config.yaml")
    # The folders of this test, and the sockets' group, which a test machine may not have.
    path = tmp_path / "haproxy/fail-closed.cfg"
    path.write_text(path.read_text().replace("/etc/haproxy", f"{tmp_path}/haproxy").replace("/run/haproxy", str(tmp_path)).replace(" group haproxy", ""))
    for haproxy in haproxies:
        output = run(haproxy, "-c", "-f", path)
        expected = ("could not resolve address", "changed from server-state")
        assert not [line for line in output.splitlines() if "WARNING" in line and not any(part in line for part in expected)]
    configured = path.read_text()
    assert "orders-a.abc.eu-west-1.rds.amazonaws.com:5432 agent-send" in configured and "192.0.2." not in configured


def test_every_yaml_example_of_the_agent_is_valid(tmp_path, agent):
    """Examples that show only `proxies` get the databases of the example before."""
    databases = "databases:\n  - name: orders\n    engine: postgresql\n    user: lb_agent\n    region: eu-west-1\n    instances: [{name: a, endpoint: 'a.b:1'}, {name: b, endpoint: 'b.b:1'}]\n"
    pages = [ROOT / "docs/INSTALL.md", DEPLOY / "envoy/README.md"]
    examples = [part for page in pages for part in re.findall(r"^ *```yaml\n(.*?)^ *```", page.read_text(), re.M | re.S)]
    assert len(examples) >= 4
    for example in examples:
        indent = len(example) - len(example.lstrip())
        lines = [line[indent:] for line in example.splitlines()]
        path = tmp_path / "config.yaml"
        path.write_text(databases + "\n".join(lines) + "\n")
        run(agent, "validate", "--config", path)
