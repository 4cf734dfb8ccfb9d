"""The .deb and the .rpm: built, checked by lintian, and installed, upgraded, downgraded, removed and purged in a clean Debian
tree.

Not run here: systemd, which a tree does not have; a stand-in records what the scripts ask of it. The .rpm is installed
into the Debian tree, so its dependencies are read and not resolved."""

import json
import os
import re
import stat
import subprocess

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from conftest import DEPLOY, ROOT, binary, run, tool

OLD, NEW = "0.0.9", "0.1.0"


def build(folder, version):
    environment = {**os.environ, "BINARY": binary("rds-lb-agent"), "VERSION": version, "OUT": str(folder), "COMPRESSION": "gzip"}
    run(DEPLOY / "packages/build.sh", env=environment)
    return {"deb": next(folder.glob("*.deb")), "rpm": next(folder.glob("*.rpm"))}


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    return {version: build(tmp_path_factory.mktemp(version), version) for version in (OLD, NEW)}


class Tree:
    def __init__(self, root):
        self.root = root
        run("tar", "-xf", ROOT / "target/deploy-tree.tar", "-C", root)
        # systemd's stand-in: runs, and records what it is asked.
        (root / "run/systemd/system").mkdir(parents=True)
        systemctl = root / "usr/bin/systemctl"
        systemctl.write_text('#!/bin/sh\necho "$*" >>/systemctl.log\n')
        systemctl.chmod(0o755)

    def run(self, *command):
        return run("chroot", self.root, *command)

    def install(self, package):
        (self.root / package.name).write_bytes(package.read_bytes())
        self.run("dpkg", "--install", f"/{package.name}")

    def rpm(self, *arguments):
        run(tool("rpm"), f"--root={self.root}", "--nodeps", *arguments)

    def asked(self):
        """What systemd was asked since the last call."""
        log = self.root / "systemctl.log"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return [line.removeprefix("--system ") for line in lines if "daemon-reload" not in line]

    def owner(self, path):
        found = (self.root / path).stat()
        passwd = dict(reversed(line.split(":")[0:3:2]) for line in (self.root / "etc/passwd").read_text().splitlines())
        group = dict(reversed(line.split(":")[0:3:2]) for line in (self.root / "etc/group").read_text().splitlines())
        return f"{passwd[str(found.st_uid)]}:{group[str(found.st_gid)]} {stat.S_IMODE(found.st_mode):o}"

    def has_user(self):
        return "\nrds-lb-agent:" in (self.root / "etc/passwd").read_text()

    def left(self):
        """Files that name the package, but those of the package manager and this test."""
        found = run("find", self.root, "-name", "*rds-lb-agent*").splitlines()
        return [path for path in found if "/var/lib/dpkg/" not in path and not path.endswith((".deb", ".rpm"))]


@pytest.fixture
def tree(tmp_path):
    if os.geteuid() != 0 or not (ROOT / "target/deploy-tree.tar").exists():
        pytest.skip("needs root and a Debian tree (make deps-deploy)")
    return Tree(tmp_path)


def test_lintian_finds_nothing(packages):
    output = run(tool("lintian"), "--allow-root", "--fail-on", "error,warning", packages[NEW]["deb"])
    assert not output.strip(), output


def test_the_same_source_makes_the_same_packages(packages, tmp_path):
    again = build(tmp_path, NEW)
    assert again["deb"].read_bytes() == packages[NEW]["deb"].read_bytes()


def test_the_bill_of_materials_is_valid_and_names_every_crate(packages, tree):
    tree.install(packages[NEW]["deb"])
    text = (tree.root / "usr/share/doc/rds-lb-agent/sbom.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_4).validate_str(text) is None
    components = json.loads(text)["components"]
    locked = set(re.findall(r'name = "(.*)"\nversion = "(.*)"\nsource', (ROOT / "Cargo.lock").read_text()))
    named = {(one["name"], one["version"]) for one in components}
    assert named <= locked and {"tokio", "aws-sigv4", "rustls"} <= {name for name, _ in named}
    assert all(one["licenses"][0]["expression"] and one["hashes"] for one in components)


def test_shells_complete_the_commands(packages, tree):
    tree.install(packages[NEW]["deb"])
    share = tree.root / "usr/share"
    assert tree.run("bash", "-n", "/usr/share/bash-completion/completions/rds-lb-agent") == ""
    for path in ("zsh/vendor-completions/_rds-lb-agent", "fish/vendor_completions.d/rds-lb-agent.fish"):
        assert "server-state" in (share / path).read_text()


def test_the_deb_through_its_life(packages, tree):
    tree.install(packages[OLD]["deb"])
    assert tree.owner("etc/rds-lb-agent/config.yaml") == "root:rds-lb-agent 640"
    assert tree.owner("var/lib/rds-lb-agent") == "rds-lb-agent:rds-lb-agent 700"
    assert "rds-lb-agent" in tree.run("rds-lb-agent", "version")
    # The shipped configuration is valid, and only observes.
    assert "sessions: observe" in tree.run("rds-lb-agent", "validate")
    assert "\nrouting: observe\n" in (tree.root / "etc/rds-lb-agent/config.yaml").read_text()
    assert tree.asked() == [], "nothing is enabled or started"

    config = tree.root / "etc/rds-lb-agent/config.yaml"
    own = config.read_text() + "\n# my own line\n"
    config.write_text(own)
    (tree.root / "var/lib/rds-lb-agent/records.json").write_text("{}")
    for version in (NEW, OLD, NEW):
        tree.install(packages[version]["deb"])
        assert config.read_text() == own
        assert (tree.root / "var/lib/rds-lb-agent/records.json").exists()
        assert tree.asked() == ["try-restart rds-lb-agent.service"]
        assert tree.owner("etc/rds-lb-agent/config.yaml") == "root:rds-lb-agent 640"

    tree.run("dpkg", "--remove", "rds-lb-agent")
    assert tree.asked() == ["disable --now rds-lb-agent.socket rds-lb-agent.service"]
    assert not (tree.root / "usr/bin/rds-lb-agent").exists()
    assert not list((tree.root / "lib/systemd/system").glob("rds-lb-agent.*"))
    assert config.read_text() == own and tree.has_user()
    assert (tree.root / "var/lib/rds-lb-agent/records.json").exists()

    tree.install(packages[NEW]["deb"])
    assert config.read_text() == own
    tree.run("dpkg", "--purge", "rds-lb-agent")
    assert tree.left() == [] and not tree.has_user()
    assert "\nhaproxy:" in (tree.root / "etc/group").read_text(), "HAProxy's group is not the package's to remove"


def test_an_upgrade_succeeds_without_the_configuration(packages, tree):
    tree.install(packages[OLD]["deb"])
    (tree.root / "etc/rds-lb-agent/config.yaml").unlink()
    tree.install(packages[NEW]["deb"])
    assert not (tree.root / "etc/rds-lb-agent/config.yaml").exists()
    assert tree.owner("etc/rds-lb-agent") == "root:rds-lb-agent 750"


def test_haproxy_can_be_installed_before_and_after(packages, tree):
    tree.run("dpkg", "--purge", "haproxy")
    if "\nhaproxy:" in (tree.root / "etc/group").read_text():
        tree.run("groupdel", "haproxy")
    tree.install(packages[NEW]["deb"])
    assert "\nhaproxy:" in (tree.root / "etc/group").read_text()
    # As HAProxy's package does.
    tree.run("adduser", "--system", "--disabled-password", "--home", "/var/lib/haproxy", "--no-create-home", "--quiet", "--group", "haproxy")
    assert "\nhaproxy:" in (tree.root / "etc/passwd").read_text()


def test_records_that_cannot_be_released_do_not_prevent_the_removal(packages, tree):
    tree.install(packages[NEW]["deb"])
    state = tree.root / "var/lib/rds-lb-agent"
    (state / "drains.json").write_text("nonsense")
    tree.run("dpkg", "--purge", "rds-lb-agent")
    assert tree.left() == []


def test_the_rpm_through_its_life(packages, tree):
    tree.rpm("--install", packages[OLD]["rpm"])
    assert tree.owner("etc/rds-lb-agent/config.yaml") == "root:rds-lb-agent 640"
    assert "rds-lb-agent" in tree.run("rds-lb-agent", "version")
    assert tree.asked() == []
    config = tree.root / "etc/rds-lb-agent/config.yaml"
    own = config.read_text() + "\n# my own line\n"
    config.write_text(own)
    tree.rpm("--upgrade", packages[NEW]["rpm"])
    assert config.read_text() == own
    assert tree.asked() == ["try-restart rds-lb-agent.service"]
    tree.rpm("--upgrade", "--oldpackage", packages[OLD]["rpm"])
    assert config.read_text() == own
    assert tree.asked() == ["try-restart rds-lb-agent.service"]
    tree.rpm("--erase", "rds-lb-agent")
    assert tree.asked() == ["disable --now rds-lb-agent.socket rds-lb-agent.service"]
    assert not (tree.root / "usr/bin/rds-lb-agent").exists()
    assert (tree.root / "etc/rds-lb-agent/config.yaml.rpmsave").read_text() == own


def test_the_packages_say_which_glibc_they_need(packages):
    requires = run(tool("rpm"), "-qp", "--requires", packages[NEW]["rpm"], stderr=subprocess.DEVNULL)
    depends = run("dpkg-deb", "--field", packages[NEW]["deb"], "Depends")
    assert "glibc >= 2." in requires and "libc6 (>= 2." in depends
