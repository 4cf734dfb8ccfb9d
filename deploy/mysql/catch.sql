-- Adds `busy: catch`, for sessions that are never idle for 200 ms.
--
--   mysql < catch.sql
--   GRANT EXECUTE ON PROCEDURE rds_lb_agent.catch TO lb_agent;
--
-- Run it after retire.sql, as the same user. Leave it out unless you use `busy: catch`: without
-- it the agent cannot close a session that has been idle for less than 200 ms. Running the script
-- again removes the grant; repeat it then.
--
-- The procedure catch() has the conditions of retire(), but instead of 200 ms of idle time it
-- requires that the session became idle within the last 5 ms: a client that has just received its
-- result is the least likely to have sent its next statement. performance_schema has to record
-- transactions; innodb_trx is too slow for this.
--
-- MySQL 8.0 to 9.7, MariaDB 10.5 to 11, RDS and Aurora.

DELIMITER //

DROP PROCEDURE IF EXISTS rds_lb_agent.catch //

CREATE PROCEDURE rds_lb_agent.catch(
  IN connection_id BIGINT UNSIGNED, IN client_address VARBINARY(45), IN client_port INT UNSIGNED,
  IN user_name VARBINARY(320))
SQL SECURITY DEFINER
COMMENT 'rds-lb-agent procedure, version 2. Closes one session of an IAM user that has just become idle.'
BEGIN
  SET @lb_id = connection_id, @lb_ip = client_address, @lb_port = client_port, @lb_user = user_name;
  SET @lb_any_user = FALSE, @lb_least = 0, @lb_most = 5000;
  SET @lb_by_events = TRUE, @lb_by_trx = FALSE;
  CALL rds_lb_agent.guarded_close();
END //

DELIMITER ;
