#!/bin/sh
# deb: $1 is remove or upgrade. rpm: $1 is 0 at a removal, 1 at an upgrade.
set -e

case "$1" in
  remove | 0) ;;
  *) exit 0 ;;
esac

# A stop by SIGTERM ends what the agent has set in HAProxy. After a kill, its records still name it.
if [ -d /run/systemd/system ]; then
  systemctl --system disable --now rds-lb-agent.socket rds-lb-agent.service || true
fi
if [ -e /var/lib/rds-lb-agent ] && ! rds-lb-agent release --state-dir /var/lib/rds-lb-agent >&2; then
  echo "rds-lb-agent: HAProxy may still have drains or DOWN servers of the agent (see above)" >&2
fi
exit 0
