-- Creates the agent's database user.
--
--   mysql < agent.sql
--
-- Run it on the writer, as the master user of RDS; it is replicated from there. The user logs in
-- by IAM and over TLS only. It sees the state of sessions (PROCESS, performance_schema), the
-- replication status (REPLICATION CLIENT, which MariaDB splits into BINLOG MONITOR and REPLICA
-- MONITOR), and the names and plugins of accounts. It cannot read data or close sessions;
-- retire.sql is for the latter. The script can be run again at any time.
--
-- MySQL 8.0 to 9.7, MariaDB 10.5 to 11, RDS and Aurora.

CREATE USER IF NOT EXISTS lb_agent IDENTIFIED WITH AWSAuthenticationPlugin AS 'RDS' REQUIRE SSL;
GRANT PROCESS, REPLICATION CLIENT ON *.* TO lb_agent;
GRANT SELECT ON performance_schema.* TO lb_agent;
GRANT SELECT (User, Host, plugin, Super_priv) ON mysql.user TO lb_agent;
-- MariaDB, in addition: GRANT REPLICA MONITOR ON *.* TO lb_agent;
