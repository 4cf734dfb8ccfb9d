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
