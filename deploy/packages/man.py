#!/usr/bin/env python3
"""Writes the manual page from the program's own help. Arguments: the program, the version, the date."""

import re
import subprocess
import sys

program, version, date = sys.argv[1:4]


def help_of(*command):
    done = subprocess.run([program, *command, "--help"], capture_output=True, text=True, check=True)
    return done.stdout.strip().splitlines()


def escape(line):
    line = line.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + line if line[:1] in ".'" else line


def block(lines):
    print(".nf")
    print("\n".join(escape(line) for line in lines))
    print(".fi")


top = help_of()
usage = next(index for index, line in enumerate(top) if line.startswith("Usage:"))
commands = [match[1] for line in top if (match := re.match(r"  ([a-z][a-z-]+) {2,}\S", line)) and match[1] != "help"]
print(f'.TH RDS\\-LB\\-AGENT 8 "{date}" "rds\\-lb\\-agent {version}" "System Administration"')
print(".SH NAME\nrds\\-lb\\-agent \\- health checks and session retirement for HAProxy and Envoy in front of Amazon RDS")
print(".SH SYNOPSIS\n.B rds\\-lb\\-agent\n.I COMMAND\n[options]")
print(".SH DESCRIPTION")
print("\n".join(escape(line) for line in top[:usage] if line))
print(".SH COMMANDS")
for command in commands:
    print(f".SS {escape(command)}")
    block(help_of(command))
print(".SH EXIT STATUS")
print("\n".join(escape(line) for line in top[usage:] if line.startswith("Exit codes:")))
print(".SH FILES\n.I /etc/rds\\-lb\\-agent/config.yaml\n.br\n.I /var/lib/rds\\-lb\\-agent\n.br\n.I /usr/share/doc/rds\\-lb\\-agent")
print(".SH SEE ALSO\n.BR haproxy (1),\n.I /usr/share/doc/rds\\-lb\\-agent/CONFIGURATION.md")
