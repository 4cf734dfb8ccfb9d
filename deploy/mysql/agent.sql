-- Makes the agent's database user.
--
--   mysql < agent.sql
--
-- Run it on the writer, as the master user of RDS; replicas get it from there. The user
-- logs in by IAM only and over TLS only, sees what sessions do (PROCESS,
-- performance_schema), how far a replica is behind (REPLICATION CLIENT, which MariaDB
-- splits into BINLOG MONITOR and REPLICA MONITOR), and of the accounts their names and
-- how they log in. It reads no data and cannot close sessions: see retire.sql for that.
-- Can be run again at any time.
--
-- MySQL 8.0 to 9.7, MariaDB 10.5 to 11, RDS and Aurora.

CREATE USER IF NOT EXISTS lb_agent IDENTIFIED WITH AWSAuthenticationPlugin AS 'RDS' REQUIRE SSL;
GRANT PROCESS, REPLICATION CLIENT ON *.* TO lb_agent;
GRANT SELECT ON performance_schema.* TO lb_agent;
GRANT SELECT (User, Host, plugin, Super_priv) ON mysql.user TO lb_agent;
-- MariaDB, in addition: GRANT REPLICA MONITOR ON *.* TO lb_agent;
