#!/usr/bin/env bash
# The checks of rds-lb-agent that only a real RDS can answer, on the balancer of ./terraform or on a host of your own.
# Prints a line for each check, PASS or FAIL, and a summary. README.md says what to prepare.
#
# Usage: trial.sh ENVIRONMENT-FILE [CHECK...]     without CHECK: all, in this order
#   logins      the agent logs in to both instances by IAM, over TLS verified by the built-in certificates
#   refusal     a login as a user without rds-db:connect is refused, and named as such
#   routing     through HAProxy, the write port leads to the writer and the read port to the replica
#   retire      a session past max_age is closed while it is idle, and the client reads 57P01
#   held        a session in a transaction is not closed, however old it is
#   failover    after a failover the write port leads to the new writer; new logins fail for at most 30 s
#   outlives    a session outlives the token that opened it: RDS does not close it (takes 16 minutes)
#
# Variables of the file: WRITE_ENDPOINT, READ_ENDPOINT, ENDPOINT_A, ENDPOINT_B, PORT, DATABASE, CLUSTER.
# Optional: CONNECT_A, CONNECT_B (host:port), CA_FILE, FAILOVER (a command, instead of the AWS command line),
# AGENT, HAPROXY, TOKEN_LIFE (seconds), MAX_AGE.
#
# Exit: 0 all passed, 1 some failed, 64 wrong usage.
set -uo pipefail

if [ $# -eq 0 ] || [ ! -r "$1" ]; then
  sed -n '2,/^set -/s/^# \{0,1\}//p' "$0" >&2
  exit 64
fi
# shellcheck disable=SC1090
. "$1"
shift
: "${ENDPOINT_A:?}" "${ENDPOINT_B:?}" "${PORT:?}" "${DATABASE:?}"
AGENT=${AGENT:-rds-lb-agent}
HAPROXY=${HAPROXY:-haproxy}
MAX_AGE=${MAX_AGE:-60s}
TOKEN_LIFE=${TOKEN_LIFE:-900}
CONNECT_A=${CONNECT_A:-$ENDPOINT_A:$PORT}
CONNECT_B=${CONNECT_B:-$ENDPOINT_B:$PORT}
# Of the trial's own proxy and agent, on loopback.
WRITE=${WRITE:-15432} READ=${READ:-15433} CHECK=${CHECK:-17878} HTTP=${HTTP:-17879}
CA_LINE=
[ -z "${CA_FILE:-}" ] || CA_LINE="ca_file: $CA_FILE"

folder=$(mktemp -d)
pids=()
finish() {
  [ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null
  wait
  # Kept after a failure.
  if [ "$failed" -eq 0 ]; then rm -rf "$folder"; else echo "logs: $folder"; fi
}
trap finish EXIT

passed=0 failed=0
pass() { printf 'PASS %-9s %s\n' "$1" "$2"; passed=$((passed + 1)); }
fail() { printf 'FAIL %-9s %s\n' "$1" "$2"; failed=$((failed + 1)); }
# within SECONDS COMMAND...
within() {
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do [ "$SECONDS" -lt "$end" ] || return 1; sleep 0.2; done
}

tls=sslmode=require
[ -z "${CA_FILE:-}" ] || tls="sslmode=verify-full sslrootcert=$CA_FILE"
# login ENDPOINT PORT USER ARGUMENTS...: a new login through the trial's HAProxy, with a token for this endpoint.
login() {
  local endpoint=$1 port=$2 user=$3
  shift 3
  PGPASSWORD=$("$AGENT" token --endpoint "$endpoint:$PORT" --user "$user") PGCONNECT_TIMEOUT=5 psql -XAtq -v ON_ERROR_STOP=1 \
    "host=$endpoint hostaddr=127.0.0.1 port=$port dbname=$DATABASE user=$user $tls" "$@" 2>"$folder/psql.err"
}
# sql PORT USER ARGUMENTS...: the same, at the instance to which the port leads. An instance takes only its own tokens.
sql() {
  local port=$1 user=$2 endpoint
  shift 2
  for endpoint in "$ENDPOINT_A" "$ENDPOINT_B"; do
    if login "$endpoint" "$port" "$user" -c 'SELECT' >/dev/null; then
      login "$endpoint" "$port" "$user" "$@"
      return
    fi
  done
  return 1
}
role_at() { [ "$(sql "$1" app -c 'SELECT pg_is_in_recovery()')" = "$2" ]; }

start() {
  cat >"$folder/agent.yaml" <<YAML
databases:
  - name: trial
    engine: postgresql
    user: lb_agent
    database_name: $DATABASE
    $CA_LINE
    instances:
      - {name: a, endpoint: "$ENDPOINT_A:$PORT", connect: "$CONNECT_A"}
      - {name: b, endpoint: "$ENDPOINT_B:$PORT", connect: "$CONNECT_B"}
proxies:
  - haproxy: {socket: $folder/admin.sock}
    backends:
      trial_write: {database: trial, role: writer, servers: {a: a, b: b}}
      trial_read: {database: trial, role: reader, servers: {a: a, b: b}}
sessions: {mode: retire, max_age: $MAX_AGE, users: [app]}
listen: {agent_check: "127.0.0.1:$CHECK", http: "127.0.0.1:$HTTP", control: $folder/control.sock}
state_dir: $folder/state
YAML
  {
    printf 'global\n stats socket %s/admin.sock mode 600 level admin\n maxconn 500\n' "$folder"
    printf 'defaults\n mode tcp\n timeout connect 5s\n timeout client 1h\n timeout server 1h\n retries 10\n option redispatch 1\n'
    for pool in write:$WRITE read:$READ; do
      printf 'listen trial_%s\n bind 127.0.0.1:%s\n' "${pool%:*}" "${pool#*:}"
      printf ' default-server agent-check agent-addr 127.0.0.1 agent-port %s agent-inter 1s init-addr libc,none\n' "$CHECK"
      printf ' server a %s agent-send "trial_%s/a\\n"\n' "$CONNECT_A" "${pool%:*}"
      printf ' server b %s agent-send "trial_%s/b\\n"\n' "$CONNECT_B" "${pool%:*}"
      printf ' server wait 127.0.0.1:9 backup no-agent-check\n'
    done
  } >"$folder/haproxy.cfg"
  "$AGENT" run --config "$folder/agent.yaml" >"$folder/agent.log" 2>&1 &
  pids+=($!)
  "$HAPROXY" -f "$folder/haproxy.cfg" >"$folder/haproxy.log" 2>&1 &
  pids+=($!)
}

check_logins() {
  if "$AGENT" check --config "$folder/agent.yaml" >"$folder/check.log" 2>&1; then
    pass logins "IAM logins on both instances"
  else
    fail logins "$(tail -n 3 "$folder/check.log" | tr '\n' ' ')"
  fi
}

check_refusal() {
  sed 's/user: lb_agent/user: not_allowed/' "$folder/agent.yaml" >"$folder/refused.yaml"
  "$AGENT" check --config "$folder/refused.yaml" >"$folder/refused.log" 2>&1
  if [ $? -eq 1 ] && grep -qiE 'refused|rds-db:connect|28000' "$folder/refused.log"; then
    pass refusal "a user without the policy is refused: $(grep -iEm1 'refused|28000' "$folder/refused.log" | cut -c1-120)"
  else
    fail refusal "$(head -n 3 "$folder/refused.log" | tr '\n' ' ')"
  fi
}

check_routing() {
  if within 60 role_at "$WRITE" f && within 60 role_at "$READ" t; then
    pass routing "write port: writer, read port: replica"
  else
    fail routing "$(tail -n 1 "$folder/psql.err")"
  fi
}

# A client that is idle for longer than max_age, then asks again.
check_retire() {
  local seconds=$((${MAX_AGE%s} * 2))
  if sql "$WRITE" app -c 'SELECT 1' -c "\\! sleep $seconds" -c 'SELECT 2' >"$folder/retire.out"; then
    fail retire "an idle session was still open after $seconds s"
  elif grep -q 'terminating connection' "$folder/psql.err"; then
    pass retire "closed while idle, and the client read the reason (57P01)"
  else
    fail retire "$(tail -n 1 "$folder/psql.err")"
  fi
}

check_held() {
  local seconds=$((${MAX_AGE%s} * 2))
  if sql "$WRITE" app -c BEGIN -c 'SELECT 1' -c "\\! sleep $seconds" -c COMMIT >"$folder/held.out"; then
    pass held "a transaction of $seconds s was not interrupted"
  else
    fail held "$(tail -n 1 "$folder/psql.err")"
  fi
}

# another_writer ADDRESS: the write port leads to a writer at another address.
# shellcheck disable=SC2317 # Called by `within`.
another_writer() {
  local now
  now=$(sql "$WRITE" app -c 'SELECT inet_server_addr() WHERE NOT pg_is_in_recovery()')
  [ -n "$now" ] && [ "$now" != "$1" ]
}

check_failover() {
  local before begun
  before=$(sql "$WRITE" app -c 'SELECT inet_server_addr()')
  # shellcheck disable=SC2086 # A command with arguments.
  if ! ${FAILOVER:-aws rds failover-db-cluster --db-cluster-identifier "${CLUSTER:?}"} >"$folder/failover.log" 2>&1; then
    fail failover "could not be started: $(tail -n 1 "$folder/failover.log")"
    return
  fi
  begun=$SECONDS
  if within 300 another_writer "$before"; then
    pass failover "new sessions reached the new writer after $((SECONDS - begun)) s"
  else
    fail failover "the write port did not reach another writer within 300 s"
  fi
}

# Not through the trial's proxy, where the agent would retire it.
check_outlives() {
  local seconds=$((TOKEN_LIFE * 16 / 15)) address=${CONNECT_A%:*}
  if PGPASSWORD=$("$AGENT" token --endpoint "$ENDPOINT_A:$PORT" --user app) psql -XAtq -v ON_ERROR_STOP=1 \
    "host=$ENDPOINT_A hostaddr=$(getent ahostsv4 "$address" | awk '{print $1; exit}') port=$PORT dbname=$DATABASE user=app $tls" \
    -c 'SELECT 1' -c "\\! sleep $seconds" -c 'SELECT 2' >"$folder/outlives.out" 2>&1; then
    pass outlives "a session went on $seconds s after its login"
  else
    fail outlives "$(tail -n 1 "$folder/outlives.out")"
  fi
}

checks=("$@")
[ ${#checks[@]} -gt 0 ] || checks=(logins refusal routing retire held failover outlives)
start
for check in "${checks[@]}"; do
  declare -F "check_$check" >/dev/null || { echo "no check is called $check" >&2; exit 64; }
  "check_$check"
done
printf '%s passed, %s failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
