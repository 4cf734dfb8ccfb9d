-- Lets rds-lb-agent close one idle session without the right to close any.
--
--   mysql < retire.sql
--   GRANT EXECUTE ON PROCEDURE rds_lb_agent.retire TO lb_agent;
--
-- Run it on the writer, as the master user of RDS; it is replicated from there. It can be run
-- again at any time, which removes the grants: repeat them then. uninstall.sql removes everything.
--
-- It creates the database rds_lb_agent with the procedure retire(), which runs with the privileges
-- of the user who ran this script and checks every condition itself. The caller identifies one
-- session by connection id, address, port and user. The session is closed only if all of them
-- match, all accounts of that user log in by IAM and none has SUPER, and the session has been in
-- Sleep, outside any transaction, for at least 200 ms whatever the caller requests (one second
-- where innodb_trx is the source), without a visible lock. Otherwise nothing happens, and the
-- result says why.
--
-- The user who runs the script needs CONNECTION ADMIN or, on RDS, EXECUTE on mysql.rds_kill, and
-- PROCESS and SELECT on performance_schema.* and mysql.user. If that user is dropped or loses one
-- of these privileges, nothing is closed.
--
-- To stop all agents from closing anything, at once:
--   REVOKE EXECUTE ON PROCEDURE rds_lb_agent.retire FROM lb_agent;
--
-- MySQL 8.0 to 9.7, MariaDB 10.5 to 11, RDS and Aurora. For the clients `mysql` and `mariadb`,
-- which interpret DELIMITER.

CREATE DATABASE IF NOT EXISTS rds_lb_agent;

DELIMITER //

DROP PROCEDURE IF EXISTS rds_lb_agent.guarded_close //

-- The guarded close, with its parameters in user variables. Called by the procedures of this
-- database only.
CREATE PROCEDURE rds_lb_agent.guarded_close()
SQL SECURITY DEFINER
COMMENT 'rds-lb-agent procedure, version 2. Internal.'
BEGIN
  DECLARE EXIT HANDLER FOR 1094 SELECT 'gone', NULL;
  SET @lb_second = NULL, @lb_touching = 0, @lb_fresh = 0;
  IF @lb_by_trx THEN
    SET time_zone = 'SYSTEM';
    SET @lb_second = SYSDATE();
    SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;
    START TRANSACTION WITH CONSISTENT SNAPSHOT;
    SELECT COALESCE(SUM(x.trx_mysql_thread_id = @lb_id), 0),
           COALESCE(SUM(x.trx_mysql_thread_id = CONNECTION_ID() AND x.trx_started >= @lb_second), 0)
      INTO @lb_touching, @lb_fresh
      FROM information_schema.INNODB_TRX AS x;
    ROLLBACK;
  END IF;
  SET @lb_at = SYSDATE(6);
  SELECT MAX(IF(t.PROCESSLIST_ID = @lb_id, t.THREAD_ID, NULL)),
         MAX(IF(t.PROCESSLIST_ID = @lb_id, t.INSTRUMENTED = 'YES', NULL)),
         MAX(IF(t.PROCESSLIST_ID = CONNECTION_ID(), t.THREAD_ID, NULL))
    INTO @lb_thread, @lb_watched, @lb_me
    FROM performance_schema.threads AS t
   WHERE t.PROCESSLIST_ID IN (@lb_id, CONNECTION_ID());
  SELECT COALESCE(SUM(c.ENABLED = 'YES'), 0) = 3
     AND (SELECT COUNT(*) FROM performance_schema.setup_instruments AS i
           WHERE i.NAME = 'transaction' AND i.ENABLED = 'YES') = 1
    INTO @lb_switched_on
    FROM performance_schema.setup_consumers AS c
   WHERE c.NAME IN ('global_instrumentation', 'thread_instrumentation', 'events_transactions_current');
  SELECT COUNT(*), COALESCE(SUM(e.STATE = 'ACTIVE'), 0)
    INTO @lb_transactions, @lb_active
    FROM performance_schema.events_transactions_current AS e
   WHERE e.THREAD_ID = @lb_thread;
  SELECT COUNT(*)
    INTO @lb_locks
    FROM performance_schema.metadata_locks AS l
   WHERE l.OWNER_THREAD_ID = @lb_thread;
  SELECT COUNT(*)
    INTO @lb_socket
    FROM performance_schema.socket_instances AS s
   WHERE s.THREAD_ID = @lb_thread AND s.PORT = @lb_port AND s.IP IN (CAST(@lb_ip AS BINARY), CAST(CONCAT('::ffff:', @lb_ip) AS BINARY));
  SELECT COUNT(*) > 0 AND MIN(a.plugin IN ('AWSAuthenticationPlugin', 'pam')), COALESCE(MAX(a.Super_priv = 'Y'), 1)
    INTO @lb_iam_user, @lb_superuser
    FROM mysql.user AS a
   WHERE a.User IN (CAST(@lb_user AS BINARY), '');
  SELECT (SELECT CONCAT_WS(' ',
                   COALESCE(p.USER = CAST(@lb_user AS BINARY)
                              AND (p.HOST = CAST(CONCAT(@lb_ip, ':', @lb_port) AS BINARY)
                                   OR @lb_socket = 1
                                   OR p.HOST = CAST(CONCAT('localhost:', @lb_port) AS BINARY)
                                      AND CAST(@lb_ip AS BINARY) = '127.0.0.1'
                                      AND @@bind_address REGEXP '^[0-9.]+$'), 0),
                   COALESCE(p.COMMAND = 'Sleep', 0),
                   COALESCE(p.TIME, 0),
                   COALESCE(FLOOR(TIME_MS * 1000), -1))
            FROM information_schema.PROCESSLIST AS p
           WHERE p.ID = @lb_id)
    INTO @lb_look
    FROM (SELECT NULL AS TIME_MS) AS where_there_is_no_such_column;
  SET @lb_idle = COALESCE(
    NULLIF(CAST(SUBSTRING_INDEX(@lb_look, ' ', -1) AS SIGNED), -1),
    (SELECT CAST(FLOOR((GREATEST(MAX(IF(s.THREAD_ID = @lb_me, s.TIMER_END, NULL)),
                                 MAX(IF(s.THREAD_ID = @lb_thread, s.TIMER_END, NULL)))
                        - MAX(IF(s.THREAD_ID = @lb_thread, s.TIMER_END, NULL))) / 1000000) AS SIGNED)
       FROM performance_schema.events_statements_current AS s
      WHERE s.THREAD_ID IN (@lb_me, @lb_thread)
     HAVING SUM(s.THREAD_ID = @lb_thread AND s.END_EVENT_ID IS NULL) = 0),
    GREATEST(CAST(SUBSTRING_INDEX(SUBSTRING_INDEX(@lb_look, ' ', -2), ' ', 1) AS SIGNED) - 1, 0) * 1000000);
  SET @lb_verdict = CASE
      WHEN @lb_look IS NULL THEN 'gone'
      WHEN @lb_id = CONNECTION_ID() THEN 'not_allowed'
      WHEN @lb_look NOT LIKE '1 %' THEN 'changed'
      WHEN @lb_superuser OR NOT (@lb_iam_user OR @lb_any_user) THEN 'not_allowed'
      WHEN @lb_look NOT LIKE '1 1 %' THEN 'not_idle'
      WHEN @lb_active > 0 OR @lb_touching > 0 THEN 'not_idle'
      WHEN @lb_by_events AND NOT COALESCE(@lb_switched_on AND @lb_watched, 0) THEN 'not_shown'
      WHEN @lb_idle < @lb_least THEN 'not_quiet'
      WHEN @lb_by_trx AND @lb_fresh <> 1 THEN 'stale'
      WHEN @lb_idle < TIMESTAMPDIFF(MICROSECOND, COALESCE(@lb_second, @lb_at), SYSDATE(6)) THEN 'not_idle'
      WHEN @lb_idle > @lb_most THEN 'not_fresh'
      WHEN @lb_locks > 0 THEN 'advisory_lock'
      WHEN @lb_transactions = 0 AND NOT @lb_by_trx AND NOT COALESCE(@lb_may_ask, TRUE) THEN 'not_asked'
      WHEN @lb_transactions = 0 AND NOT @lb_by_trx
       AND (SELECT COUNT(*) FROM information_schema.INNODB_TRX AS x WHERE x.trx_mysql_thread_id = @lb_id) > 0
      THEN 'touching'
      ELSE 'close'
    END;
  SELECT COUNT(*)
    INTO @lb_locks
    FROM performance_schema.metadata_locks AS l
   WHERE l.OWNER_THREAD_ID = @lb_thread;
  SET @lb_kill = CASE
      WHEN @lb_verdict <> 'close' OR @lb_locks > 0 THEN NULL
      WHEN COALESCE(@lb_switched_on AND @lb_watched, 0)
      THEN (SELECT t.PROCESSLIST_ID
              FROM performance_schema.threads AS t
              LEFT JOIN performance_schema.events_transactions_current AS e ON e.THREAD_ID = t.THREAD_ID
             WHERE t.THREAD_ID = @lb_thread AND t.PROCESSLIST_ID = @lb_id
               AND t.PROCESSLIST_COMMAND = 'Sleep' AND COALESCE(e.STATE, '') <> 'ACTIVE'
             LIMIT 1)
      ELSE (SELECT (SELECT p.ID
                      FROM information_schema.PROCESSLIST AS p
                     WHERE p.ID = @lb_id AND p.COMMAND = 'Sleep'
                       AND COALESCE(TIME_MS * 1000, (p.TIME - 1) * 1000000) >= @lb_least)
              FROM (SELECT NULL AS TIME_MS) AS where_there_is_no_such_column)
    END;
  IF @lb_kill IS NULL THEN
    SELECT IF(@lb_verdict = 'close', 'not_idle', @lb_verdict), @lb_idle, @lb_transactions;
  ELSE
    BEGIN
      -- If the definer may not kill: RDS's replacement, which reads the process list first and so
      -- leaves more time for a race.
      DECLARE EXIT HANDLER FOR 1095
        IF EXISTS (SELECT 1 FROM information_schema.ROUTINES
                    WHERE ROUTINE_SCHEMA = 'mysql' AND ROUTINE_NAME = 'rds_kill') THEN
          CALL mysql.rds_kill(@lb_kill);
        ELSE
          RESIGNAL;
        END IF;
      KILL CONNECTION @lb_kill;
    END;
    SELECT 'closed', @lb_idle, @lb_transactions;
  END IF;
END //

DROP PROCEDURE IF EXISTS rds_lb_agent.retire //

-- Closes one session that has been idle for at least quiet_us microseconds, and at least 200 ms.
-- by_events, by_trx: the sources that have to show that no transaction is open, performance_schema
-- and innodb_trx; performance_schema if neither is set.
CREATE PROCEDURE rds_lb_agent.retire(
  IN connection_id BIGINT UNSIGNED, IN client_address VARBINARY(45), IN client_port INT UNSIGNED,
  IN user_name VARBINARY(320), IN quiet_us BIGINT UNSIGNED, IN by_events BOOLEAN, IN by_trx BOOLEAN)
SQL SECURITY DEFINER
COMMENT 'rds-lb-agent procedure, version 2. Closes one session of an IAM user between two transactions.'
BEGIN
  SET @lb_id = connection_id, @lb_ip = client_address, @lb_port = client_port, @lb_user = user_name;
  SET @lb_any_user = FALSE, @lb_most = NULL;
  SET @lb_by_trx = COALESCE(by_trx, FALSE);
  SET @lb_by_events = COALESCE(by_events, TRUE) OR NOT @lb_by_trx;
  SET @lb_least = GREATEST(COALESCE(quiet_us, 0), IF(@lb_by_trx, 1000000, 200000));
  CALL rds_lb_agent.guarded_close();
END //

DELIMITER ;
