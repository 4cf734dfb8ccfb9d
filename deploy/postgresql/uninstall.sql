-- Takes away what retire.sql and catch.sql have installed.
--
--   psql -f uninstall.sql "host=... dbname=... user=..."
--
-- Run it in every database where they were installed, as the same user. The role
-- rds_lb_agent_owner goes with the last of them; until then it stays, with a notice.
--
-- PostgreSQL 11 to 18.

BEGIN;

DROP SCHEMA IF EXISTS rds_lb_agent CASCADE;

DO $do$
BEGIN
  IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'rds_lb_agent_owner') THEN
    DROP ROLE rds_lb_agent_owner;
  END IF;
EXCEPTION WHEN dependent_objects_still_exist THEN
  RAISE NOTICE 'the role rds_lb_agent_owner stays: it is in use in another database';
END
$do$;

COMMIT;
