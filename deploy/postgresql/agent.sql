-- Creates the agent's database user.
--
--   psql -f agent.sql "host=... dbname=... user=..."
--
-- The user logs in by IAM only (rds_iam; it has no password), sees the state of sessions in all
-- databases (pg_read_all_stats), and cannot read any table. It cannot close sessions; retire.sql
-- is for that. The script can be run again at any time.
--
-- PostgreSQL 11 to 18.

BEGIN;

DO $do$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'lb_agent') THEN
    CREATE ROLE lb_agent LOGIN;
  END IF;
END
$do$;

GRANT rds_iam, pg_read_all_stats TO lb_agent;

COMMIT;
