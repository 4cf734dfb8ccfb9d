-- Adds `busy: catch`, for sessions that are never idle for 200 ms.
--
--   psql -f catch.sql "host=... dbname=... user=..."
--
-- Run it after retire.sql, in the same database and as the same user. Leave it out unless you use
-- `busy: catch`: without it the agent cannot close a session that has been idle for less than
-- 200 ms.
--
-- The function catch() has the conditions of retire(), but instead of 200 ms of idle time it
-- requires that the session became idle within the last 5 ms: a client that has just received its
-- result is the least likely to have sent its next statement.
--
-- PostgreSQL 11 to 18.

BEGIN;

DO $do$
BEGIN
  IF NOT pg_catalog.pg_has_role(current_user, 'lb_agent_retire_owner', 'USAGE') THEN
    GRANT lb_agent_retire_owner TO CURRENT_USER;
  END IF;
END
$do$;

CREATE OR REPLACE FUNCTION rds_lb_agent.catch(
  pid int4, started timestamptz, client_address inet, client_port int4, user_name name)
RETURNS TABLE (outcome text, idle_for_us int8)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
  RETURN QUERY SELECT * FROM rds_lb_agent.guarded_close(
    $1, $2, $3, $4, $5, false, 0, 5000);
END
$function$;

COMMENT ON FUNCTION rds_lb_agent.catch(int4, timestamptz, inet, int4, name)
  IS 'rds-lb-agent function, version 1. Closes one session of an IAM user that has just become idle.';

ALTER FUNCTION rds_lb_agent.catch(int4, timestamptz, inet, int4, name) OWNER TO lb_agent_retire_owner;
REVOKE ALL ON FUNCTION rds_lb_agent.catch(int4, timestamptz, inet, int4, name) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION rds_lb_agent.catch(int4, timestamptz, inet, int4, name) TO lb_agent_retire;

COMMIT;
