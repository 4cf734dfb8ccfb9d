-- Removes what retire.sql and catch.sql installed, and every grant on it.
--
--   mysql < uninstall.sql
--
-- MySQL 8.0 to 9.7, MariaDB 10.5 to 11, RDS and Aurora.

-- One by one: dropping the database alone would leave the grants on its procedures.
CREATE DATABASE IF NOT EXISTS rds_lb_agent;
DROP PROCEDURE IF EXISTS rds_lb_agent.retire;
DROP PROCEDURE IF EXISTS rds_lb_agent.catch;
DROP PROCEDURE IF EXISTS rds_lb_agent.guarded_close;
DROP DATABASE rds_lb_agent;
