"""The script of deploy/aws-trial, run against the stand-in for RDS. What only AWS can answer stays open."""

import json
import os
import signal
import subprocess

from conftest import DEPLOY, binary, free_ports, tool

SCRIPT = DEPLOY / "aws-trial/trial.sh"
CHECKS = ["logins", "refusal", "routing", "retire", "held", "failover", "outlives"]


def test_the_script_passes_against_the_stand_in_and_fails_without_it(agent, tmp_path):
    tool("psql")
    standin = binary("iam-standin")
    process = subprocess.Popen([standin, "run", "--replicas", "1", "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        summary = json.loads(process.stdout.readline())
        a, b = summary["servers"]
        ports = dict(zip(["WRITE", "READ", "CHECK", "HTTP"], free_ports(4)))
        variables = {
            "ENDPOINT_A": a["endpoint"], "CONNECT_A": a["connect"], "ENDPOINT_B": b["endpoint"], "CONNECT_B": b["connect"],
            "PORT": summary["port"], "DATABASE": summary["database"], "CA_FILE": summary["ca_file"], "AGENT": agent,
            "HAPROXY": tool("haproxy"), "MAX_AGE": "10s", "TOKEN_LIFE": 2,
            "FAILOVER": f"'{standin} --control {summary['control']} failover b'", **ports,
        }
        file = tmp_path / "trial.env"
        file.write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
        environment = {**os.environ, **dict(summary["environment"])}

        def trial(*checks):
            return subprocess.run([SCRIPT, file, *checks], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

        report = trial()
        assert report.returncode == 0, report.stdout
        assert [line.split()[:2] for line in report.stdout.splitlines()[:-1]] == [["PASS", check] for check in CHECKS]
        assert report.stdout.endswith("7 passed, 0 failed\n")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    report = trial("logins")
    assert report.returncode == 1 and report.stdout.startswith("FAIL logins"), report.stdout


def test_wrong_usage_prints_the_manual():
    done = subprocess.run([SCRIPT], text=True, capture_output=True)
    assert done.returncode == 64 and "Usage: trial.sh" in done.stderr
