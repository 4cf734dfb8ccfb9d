#!/bin/sh
# deb: $1 is configure, and $2 the version before. rpm: $1 is 1 at an installation, 2 at an upgrade.
set -e

case "$1" in
  configure) [ -n "$2" ] && upgrade=1 ;;
  abort-*) exit 0 ;;
  1) ;;
  *) upgrade=1 ;;
esac

# The group of HAProxy's socket, which the unit names. HAProxy's own package uses an existing group.
for group in haproxy rds-lb-agent; do
  getent group "$group" >/dev/null || groupadd --system "$group"
done
if ! getent passwd rds-lb-agent >/dev/null; then
  useradd --system --gid rds-lb-agent --home-dir /var/lib/rds-lb-agent --no-create-home \
    --shell /usr/sbin/nologin --comment "rds-lb-agent" rds-lb-agent
fi
[ -d /var/lib/rds-lb-agent ] || install -d -m 0700 -o rds-lb-agent -g rds-lb-agent /var/lib/rds-lb-agent
# An administrator may have deleted the configuration; dpkg does not restore it.
for path in /etc/rds-lb-agent /etc/rds-lb-agent/config.yaml; do
  if [ -e "$path" ]; then chgrp rds-lb-agent "$path"; fi
done

# Nothing is enabled or started: the shipped configuration has only examples. An upgrade restarts an agent that runs:
# the old one hands over to the new one by SIGUSR1 (RestartKillSignal in the unit).
if [ -d /run/systemd/system ]; then
  systemctl --system daemon-reload || true
  if [ -n "$upgrade" ]; then
    systemctl try-restart rds-lb-agent.service || true
  fi
fi
exit 0
