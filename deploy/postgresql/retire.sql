-- Lets rds-lb-agent close one idle session without the privilege to close any.
--
--   psql -f retire.sql "host=... dbname=... user=..."
--   GRANT lb_agent_retire TO lb_agent;
--
-- Run it in the database that the agent connects to, as the master user of RDS (rds_superuser) or
-- as a superuser; it uses nothing that only a superuser has. It can be run again at any time, by
-- the same user or by a superuser. uninstall.sql removes everything.
--
-- It creates:
--   * the role lb_agent_retire_owner, which cannot log in, with the two privileges that the agent
--     then does not need: pg_signal_backend and pg_read_all_stats;
--   * the schema rds_lb_agent with the function retire(), which runs with these privileges and
--     checks every condition itself. The caller identifies one session by process id, start, client
--     address, client port and user. The session is closed only if all of them match, its user logs
--     in by IAM (member of rds_iam) and is no superuser, and it has been idle, outside any
--     transaction, for at least 200 ms whatever the caller requests, without an advisory lock, its
--     last statement not LISTEN. Otherwise nothing happens, and the result says why;
--   * the role lb_agent_retire, whose members alone may execute it: the agent's user.
--
-- To stop all agents from closing anything, at once:
--   REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA rds_lb_agent FROM lb_agent_retire;
--
-- To see the state of sessions the agent's user still needs pg_read_all_stats (or pg_monitor), and
-- rds_iam to log in.
--
-- From PostgreSQL 16 on, CREATEROLE alone does not allow to grant a role that another user created.
-- The script therefore grants only what is missing, so that it also runs again after an upgrade from
-- 15. For other users it fails and names who may run it.
--
-- PostgreSQL 11 to 18.

BEGIN;

DO $do$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'lb_agent_retire_owner') THEN
    CREATE ROLE lb_agent_retire_owner NOLOGIN;
  END IF;
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'lb_agent_retire') THEN
    CREATE ROLE lb_agent_retire NOLOGIN;
  END IF;
  IF NOT pg_catalog.pg_has_role('lb_agent_retire_owner', 'pg_signal_backend', 'USAGE') THEN
    GRANT pg_signal_backend TO lb_agent_retire_owner;
  END IF;
  IF NOT pg_catalog.pg_has_role('lb_agent_retire_owner', 'pg_read_all_stats', 'USAGE') THEN
    GRANT pg_read_all_stats TO lb_agent_retire_owner;
  END IF;
  -- Only a member can give objects to a role or replace its functions, unless it is a superuser.
  IF NOT pg_catalog.pg_has_role(current_user, 'lb_agent_retire_owner', 'USAGE') THEN
    GRANT lb_agent_retire_owner TO CURRENT_USER;
  END IF;
EXCEPTION WHEN insufficient_privilege THEN
  RAISE EXCEPTION USING
    ERRCODE = 'insufficient_privilege',
    MESSAGE = format('%s may not set up lb_agent_retire_owner: %s', current_user, sqlerrm),
    HINT = 'Run this script as the user who created lb_agent_retire_owner, who needs pg_signal_backend and '
        || 'pg_read_all_stats WITH ADMIN OPTION (on RDS the master user), or as a superuser; or let the creator run: '
        || format('GRANT lb_agent_retire_owner TO %I', current_user);
END
$do$;

CREATE SCHEMA IF NOT EXISTS rds_lb_agent AUTHORIZATION lb_agent_retire_owner;
REVOKE ALL ON SCHEMA rds_lb_agent FROM PUBLIC;

-- The guarded close. Called by the functions of this schema only.
--
-- One statement that reads the session twice: first everything is checked, then its state is read
-- again, and the signal follows at once if the session is still in the same idle period.
--
-- $1 process id, $2 its start, $3 client address, $4 client port, $5 user, $6 whether users without
-- IAM may be closed, $7 and $8 minimum and maximum idle time in microseconds (no maximum if null).
CREATE OR REPLACE FUNCTION rds_lb_agent.guarded_close(int4, timestamptz, inet, int4, name, bool, int8, int8)
RETURNS TABLE (outcome text, idle_for_us int8)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
  -- Within one transaction the server would return its first reading again.
  PERFORM pg_stat_clear_snapshot();
  RETURN QUERY
SELECT CASE guard.verdict
         WHEN 'close' THEN (
           SELECT CASE
                    WHEN s.state = 'idle' AND s.state_change = guard.state_change
                     AND s.backend_start = $2::timestamptz
                    THEN CASE WHEN pg_terminate_backend($1::int4) THEN 'closed' ELSE 'gone' END
                    ELSE 'not_idle'
                  END
             FROM (SELECT pg_stat_clear_snapshot()::text AS cleared OFFSET 0) AS fresh
             LEFT JOIN LATERAL pg_stat_get_activity(
                    CASE WHEN fresh.cleared IS NOT NULL THEN coalesce($1::int4, 0) ELSE 0 END) AS s ON true)
         ELSE guard.verdict
       END::text,
       guard.idle_us::int8
  FROM (SELECT s.state_change,
               watch.idle_us,
               CASE
                 WHEN s.pid IS NULL THEN 'gone'
                 WHEN s.pid = pg_backend_pid() THEN 'not_allowed'
                 WHEN s.backend_start IS NULL THEN 'hidden'
                 WHEN s.backend_start <> $2::timestamptz
                   OR s.client_addr IS DISTINCT FROM $3::inet
                   OR s.client_port IS DISTINCT FROM $4::int4
                   OR s.usesysid IS DISTINCT FROM known.user_id
                   OR s.backend_type IS DISTINCT FROM 'client backend' THEN 'changed'
                 WHEN known.superuser OR NOT (known.iam_user OR $6::bool) THEN 'not_allowed'
                 WHEN s.state IS DISTINCT FROM 'idle' OR s.state_change > known.at THEN 'not_idle'
                 WHEN watch.idle_us < $7::int8 THEN 'not_quiet'
                 WHEN watch.idle_us > $8::int8 THEN 'not_fresh'
                 WHEN encode(substring(textsend(s.query) FROM 1 FOR 1024), 'escape') COLLATE "C" ~* E'(^|;)(\\s|--[^\\n]*\\n|/\\*.*\\*/)*listen\\M' THEN 'listening'
                 WHEN known.advisory_locks > 0 THEN 'advisory_lock'
                 ELSE 'close'
               END AS verdict
          FROM (SELECT clock_timestamp() AS at,
                       (SELECT count(*) FROM pg_locks
                         WHERE locktype = 'advisory' AND pid = $1::int4) AS advisory_locks,
                       who.oid AS user_id,
                       coalesce(who.rolsuper, true) AS superuser,
                       coalesce(pg_has_role(who.oid, iam.oid, 'MEMBER'), false) AS iam_user
                  FROM (SELECT) AS one
                  LEFT JOIN pg_roles AS who ON who.rolname = $5::name
                  LEFT JOIN pg_roles AS iam ON iam.rolname = 'rds_iam'
                OFFSET 0) AS known
          LEFT JOIN LATERAL pg_stat_get_activity(
                 CASE WHEN known.advisory_locks >= 0 THEN coalesce($1::int4, 0) ELSE 0 END) AS s ON true
         CROSS JOIN LATERAL (
                SELECT (extract(epoch FROM clock_timestamp() - s.state_change) * 1000000)::int8 AS idle_us
                OFFSET 0) AS watch
        OFFSET 0) AS guard
  ;
END
$function$;

-- Closes one session that has been idle for at least $6 microseconds, and at least 200 ms.
CREATE OR REPLACE FUNCTION rds_lb_agent.retire(
  pid int4, started timestamptz, client_address inet, client_port int4, user_name name, quiet_us int8)
RETURNS TABLE (outcome text, idle_for_us int8)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
  RETURN QUERY SELECT * FROM rds_lb_agent.guarded_close(
    $1, $2, $3, $4, $5, false, greatest($6, 200000), NULL);
END
$function$;

COMMENT ON FUNCTION rds_lb_agent.retire(int4, timestamptz, inet, int4, name, int8)
  IS 'rds-lb-agent function, version 1. Closes one session of an IAM user between two transactions.';

ALTER FUNCTION rds_lb_agent.guarded_close(int4, timestamptz, inet, int4, name, bool, int8, int8)
  OWNER TO lb_agent_retire_owner;
ALTER FUNCTION rds_lb_agent.retire(int4, timestamptz, inet, int4, name, int8)
  OWNER TO lb_agent_retire_owner;

REVOKE ALL ON FUNCTION rds_lb_agent.guarded_close(int4, timestamptz, inet, int4, name, bool, int8, int8)
  FROM PUBLIC;
REVOKE ALL ON FUNCTION rds_lb_agent.retire(int4, timestamptz, inet, int4, name, int8)
  FROM PUBLIC;

GRANT USAGE ON SCHEMA rds_lb_agent TO lb_agent_retire;
GRANT EXECUTE ON FUNCTION rds_lb_agent.retire(int4, timestamptz, inet, int4, name, int8) TO lb_agent_retire;

COMMIT;
