-- Takes away what retire.sql and catch.sql have installed, and every grant on it.
--
--   mysql < uninstall.sql
--
-- MySQL 8.0 to 8.4, MariaDB 10.5 to 11, RDS and Aurora.

DROP DATABASE IF EXISTS rds_lb_agent;
