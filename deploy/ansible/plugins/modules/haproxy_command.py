#!/usr/bin/python
# Apache-2.0
"""Sends one command to HAProxy's runtime socket."""

from __future__ import annotations

DOCUMENTATION = r"""
module: haproxy_command
short_description: Sends one command to HAProxy's runtime socket
version_added: "0.1.0"
author: rds-lb-agent maintainers (@rds-lb-agent)
description:
  - Connects to the socket, sends the command and returns the answer. HAProxy answers an accepted change with nothing,
    so any answer to a command that does not begin with C(show) is a failure, but for "already enabled" and the like.
options:
  socket:
    description: The path of the runtime socket.
    type: path
    required: true
  command:
    description: The command. Commands that begin with C(show) change nothing and also run in check mode.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Let the health check of the load balancer in front fail
  rds_lb_agent.balancer.haproxy_command:
    socket: /run/haproxy/admin.sock
    command: disable frontend health
"""

RETURN = r"""
stdout:
  description: The answer.
  returned: always
  type: str
"""

import socket

from ansible.module_utils.basic import AnsibleModule


def ask(path, command):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(10)
        connection.connect(path)
        connection.sendall(command.encode() + b"\n")
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    return answer.decode().strip()


def main():
    module = AnsibleModule(
        argument_spec={"socket": {"type": "path", "required": True}, "command": {"type": "str", "required": True}},
        supports_check_mode=True,
    )
    command = module.params["command"]
    shows = command.startswith("show ")
    if module.check_mode and not shows:
        module.exit_json(changed=True, stdout="")
    try:
        answer = ask(module.params["socket"], command)
    except OSError as error:
        module.fail_json(msg=f"{module.params['socket']}: {error}")
    # A reload opens a frontend that was disabled.
    done_before = " already " in answer
    if answer and not shows and not done_before:
        module.fail_json(msg=f"HAProxy refused {command!r}: {answer}")
    module.exit_json(changed=not shows and not done_before, stdout=answer)


if __name__ == "__main__":
    main()
