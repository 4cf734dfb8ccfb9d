"""The IAM policies and the Terraform modules: parsed, scanned by checkov, and no right beyond reading and logging in.

Not run here: Terraform itself, which is in no registry of packages."""

import json
import re

import hcl2
import pytest
from conftest import DEPLOY, VENV, run

IAM = DEPLOY / "iam"
POLICIES = sorted((IAM / "policies").glob("*.json"))
MODULES = [IAM / "terraform", DEPLOY / "aws-trial/terraform"]
PLACEHOLDERS = {"partition", "region", "account", "resource_id", "user"}


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_policies_only_read_and_log_in(path):
    policy = json.loads(path.read_text())
    assert policy["Version"] == "2012-10-17"
    assert set(re.findall(r"\$\{(\w+)\}", path.read_text())) <= PLACEHOLDERS
    for statement in policy["Statement"]:
        assert set(statement) == {"Sid", "Effect", "Action", "Resource"} and statement["Effect"] == "Allow"
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        assert actions == sorted(actions)
        for action in actions:
            assert re.fullmatch(r"rds-db:connect|\w+:(Describe|Filter|Get)\w+", action), action
        # These actions have no resources, or their resources cannot be named.
        if statement["Resource"] == "*":
            assert not {"rds-db:connect", "logs:FilterLogEvents"} & set(actions)


def test_the_login_is_for_one_user():
    probe = json.loads((IAM / "policies/probe.json").read_text())
    assert probe["Statement"][0]["Resource"].endswith(":dbuser:${resource_id}/${user}")


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.parent.name)
def test_terraform_modules_parse_and_document_their_variables(module):
    files = {path.name: hcl2.loads(path.read_text()) for path in module.glob("*.tf")}
    assert {"main.tf", "variables.tf", "outputs.tf", "versions.tf"} <= files.keys()
    declared = {name.strip('"') for block in files["variables.tf"]["variable"] for name in block}
    for block in files["variables.tf"]["variable"] + files["outputs.tf"]["output"]:
        for name, body in block.items():
            assert body.get("description"), name
    text = "".join(path.read_text() for path in module.glob("*.tf"))
    assert set(re.findall(r"\bvar\.(\w+)", text)) == declared
    # The files that it reads exist.
    for name in re.findall(r'\$\{path\.module\}/(\.\./policies/[\w-]+\.json)"', text):
        assert (module / name).exists()


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.parent.name)
def test_checkov_finds_nothing(module):
    left_out = module.parent / "checkov.yaml"
    options = ["--config-file", left_out] if left_out.exists() else []
    output = run(VENV / "checkov", "--directory", module, "--framework", "terraform", "--quiet", "--compact", "--skip-download", *options)
    assert "Failed checks: 0" in output, output
