-- Removes what retire.sql and catch.sql installed.
--
--   psql -f uninstall.sql "host=... dbname=... user=..."
--
-- Run it in every database where they were installed, as the same user. The last run drops the
-- two roles; earlier runs leave them in place, with a notice.
--
-- PostgreSQL 11 to 18.

BEGIN;

DROP SCHEMA IF EXISTS rds_lb_agent CASCADE;

DO $do$
BEGIN
  DROP ROLE IF EXISTS lb_agent_retire, lb_agent_retire_owner;
EXCEPTION WHEN dependent_objects_still_exist THEN
  RAISE NOTICE 'the roles lb_agent_retire and lb_agent_retire_owner stay: they are in use in another database';
END
$do$;

COMMIT;
