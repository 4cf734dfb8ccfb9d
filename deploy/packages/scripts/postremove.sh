#!/bin/sh
# deb: $1 is remove, purge, upgrade, ... rpm: $1 is 0 at a removal, which keeps the state as `apt remove` does.
set -e

if [ -d /run/systemd/system ]; then
  systemctl --system daemon-reload || true
fi
if [ "$1" = purge ]; then
  rm -rf /var/lib/rds-lb-agent /etc/rds-lb-agent
  if getent passwd rds-lb-agent >/dev/null; then userdel rds-lb-agent || true; fi
  if getent group rds-lb-agent >/dev/null; then groupdel rds-lb-agent || true; fi
  # The group haproxy may be HAProxy's.
fi
exit 0
