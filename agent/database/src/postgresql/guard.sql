SELECT CASE guard.verdict
         WHEN 'close' THEN (
           SELECT CASE
                    WHEN s.state = 'idle' AND s.state_change = guard.state_change
                     AND s.backend_start = $2::timestamptz
                    THEN CASE WHEN pg_terminate_backend($1::int4) THEN 'closed' ELSE 'gone' END
                    ELSE 'not_idle'
                  END
             FROM (SELECT pg_stat_clear_snapshot()::text AS cleared OFFSET 0) AS fresh
             LEFT JOIN LATERAL pg_stat_get_activity(
                    CASE WHEN fresh.cleared IS NOT NULL THEN coalesce($1::int4, 0) ELSE 0 END) AS s ON true)
         ELSE guard.verdict
       END::text,
       guard.idle_us::int8
  FROM (SELECT s.state_change,
               watch.idle_us,
               CASE
                 WHEN s.pid IS NULL THEN 'gone'
                 WHEN s.pid = pg_backend_pid() THEN 'not_allowed'
                 WHEN s.backend_start IS NULL THEN 'hidden'
                 WHEN s.backend_start <> $2::timestamptz
                   OR s.client_addr IS DISTINCT FROM $3::inet
                   OR s.client_port IS DISTINCT FROM $4::int4
                   OR s.usesysid IS DISTINCT FROM known.user_id
                   OR s.backend_type IS DISTINCT FROM 'client backend' THEN 'changed'
                 WHEN known.superuser OR NOT (known.iam_user OR $6::bool) THEN 'not_allowed'
                 WHEN s.state IS DISTINCT FROM 'idle' OR s.state_change > known.at THEN 'not_idle'
                 WHEN watch.idle_us < $7::int8 THEN 'not_quiet'
                 WHEN watch.idle_us > $8::int8 THEN 'not_fresh'
                 WHEN encode(substring(textsend(s.query) FROM 1 FOR 1024), 'escape') COLLATE "C" ~* E'(^|;)(\\s|--[^\\n]*\\n|/\\*.*\\*/)*listen\\M' THEN 'listening'
                 WHEN known.advisory_locks > 0 THEN 'advisory_lock'
                 ELSE 'close'
               END AS verdict
          FROM (SELECT clock_timestamp() AS at,
                       (SELECT count(*) FROM pg_locks
                         WHERE locktype = 'advisory' AND pid = $1::int4) AS advisory_locks,
                       who.oid AS user_id,
                       coalesce(who.rolsuper, true) AS superuser,
                       coalesce(pg_has_role(who.oid, iam.oid, 'MEMBER'), false) AS iam_user
                  FROM (SELECT) AS one
                  LEFT JOIN pg_roles AS who ON who.rolname = $5::name
                  LEFT JOIN pg_roles AS iam ON iam.rolname = 'rds_iam'
                OFFSET 0) AS known
          LEFT JOIN LATERAL pg_stat_get_activity(
                 CASE WHEN known.advisory_locks >= 0 THEN coalesce($1::int4, 0) ELSE 0 END) AS s ON true
         CROSS JOIN LATERAL (
                SELECT (extract(epoch FROM clock_timestamp() - s.state_change) * 1000000)::int8 AS idle_us
                OFFSET 0) AS watch
        OFFSET 0) AS guard
