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
