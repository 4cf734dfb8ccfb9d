SET time_zone = 'SYSTEM';
SET @lb_second = SYSDATE();
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;
START TRANSACTION WITH CONSISTENT SNAPSHOT;
SELECT COALESCE(SUM(x.trx_mysql_thread_id = @lb_id), 0),
       COALESCE(SUM(x.trx_mysql_thread_id = CONNECTION_ID() AND x.trx_started >= @lb_second), 0)
  INTO @lb_touching, @lb_fresh
  FROM information_schema.INNODB_TRX AS x;
ROLLBACK;
