"""The image: linted, built with buildah on a runtime image made from a Debian tree, and run with a read-only root.

Not run here: the stage that compiles, and the distroless image below; both come from registries that a test machine may not
reach."""

import json
import os
import shutil
import subprocess
import time

import pytest
from conftest import DEPLOY, ROOT, VENV, binary, run, tool

DOCKERFILE = DEPLOY / "container/Dockerfile"
IMAGE, RUNTIME = "localhost/rds-lb-agent:test", "localhost/rds-lb-agent-runtime:test"
CONFIG = """\
databases:
  - {name: orders, engine: postgresql, user: lb_agent, region: eu-west-1, instances: [{name: a, endpoint: "a.example.org:1", connect: "127.0.0.1:1"}]}
listen: {agent_check: "127.0.0.1:0", http: "127.0.0.1:0"}
"""


def test_hadolint_finds_nothing():
    run(VENV / "hadolint", DOCKERFILE)


@pytest.fixture(scope="module")
def container(tmp_path_factory):
    buildah = tool("buildah")
    if os.geteuid() != 0 or not (ROOT / "target/deploy-tree.tar").exists():
        pytest.skip("needs root and a Debian tree (make deps-deploy)")
    environment = {**os.environ, "BUILDAH_ISOLATION": "chroot", "RUNTIME": RUNTIME, "IMAGE": IMAGE, "BINARY": "target/image/rds-lb-agent"}
    # A store of its own, so that nothing is left in the machine's.
    store = tmp_path_factory.mktemp("store")
    storage = store / "storage.conf"
    storage.write_text(f'[storage]\ndriver = "overlay"\nrunroot = "{store}/run"\ngraphroot = "{store}/graph"\n')
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(storage))
    environment["CONTAINERS_STORAGE_CONF"] = str(storage)
    base = tmp_path_factory.mktemp("runtime")
    run("tar", "-xf", ROOT / "target/deploy-tree.tar", "-C", base, "./lib64", "./lib", "./usr/lib64", "./usr/lib/x86_64-linux-gnu", "./etc/nsswitch.conf")
    (base / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    try:
        run(buildah, "build", "--format", "docker", "--tag", RUNTIME, base, env=environment)
    except AssertionError as error:
        pytest.skip(f"buildah cannot build here: {str(error)[-300:]}")
    (ROOT / "target/image").mkdir(exist_ok=True)
    run("strip", "-o", ROOT / "target/image/rds-lb-agent", binary("rds-lb-agent"))
    # As build.sh, with an engine that is there on every test machine.
    path = tmp_path_factory.mktemp("path")
    (path / "buildah").symlink_to(buildah)
    run(DEPLOY / "container/build.sh", env=environment | {"PATH": f"{path}:/usr/bin:/bin"})
    shutil.rmtree(ROOT / "target/image")
    name = run(buildah, "from", IMAGE).strip()
    try:
        yield name
    finally:
        run(buildah, "rm", name)
        run(buildah, "rmi", "--all", "--force")
        monkeypatch.undo()


def settings(container):
    found = json.loads(run(tool("buildah"), "inspect", container))
    return found["Docker"]["config"]


def test_the_image_is_for_one_user_without_rights(container):
    config = settings(container)
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["/usr/bin/rds-lb-agent"]
    assert config["StopSignal"] == "SIGTERM"
    assert config["Labels"]["org.opencontainers.image.version"] != "0.0.0"


def test_the_agent_runs_with_a_read_only_root_answers_its_health_check_and_stops(container, tmp_path):
    config = settings(container)
    root = run(tool("buildah"), "mount", container).strip()
    (tmp_path / "config.yaml").write_text(CONFIG)
    tmp_path.chmod(0o755)
    for parent in (tmp_path, *list(tmp_path.parents)[:2]):
        parent.chmod(0o755)
    os.makedirs(f"{root}/etc/rds-lb-agent", exist_ok=True)
    os.makedirs(f"{root}/proc", exist_ok=True)
    script = f"""set -e
      mount --bind {root} {root}; mount -o remount,bind,ro {root}
      mount --bind {tmp_path} {root}/etc/rds-lb-agent
      mount -t tmpfs -o uid=65532,gid=65532,mode=0755 tmpfs {root}/run/rds-lb-agent
      mount -t tmpfs -o uid=65532,gid=65532,mode=0700 tmpfs {root}/var/lib/rds-lb-agent
      chroot --userspec=65532:65532 --groups= {root} {' '.join(config['Entrypoint'] + config['Cmd'])} & agent=$!
      for try in $(seq 100); do
        if chroot --userspec=65532:65532 --groups= {root} {' '.join(config['Healthcheck']['Test'][1:])}; then healthy=yes; break; fi
        kill -0 $agent; sleep 0.1
      done
      kill -TERM $agent; wait $agent
      test "$healthy" = yes
    """
    begun = time.monotonic()
    done = subprocess.run(["unshare", "--mount", "bash", "-c", script], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env={"AWS_EC2_METADATA_DISABLED": "true", "PATH": os.environ["PATH"]})
    run(tool("buildah"), "umount", container)
    assert done.returncode == 0, f"{done.stdout}\n{time.monotonic() - begun:.0f} s"
    assert "agent stopping" in done.stdout
