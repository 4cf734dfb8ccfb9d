-- What is in the stand-in's databases. Run once, on the writer, before the replicas are made.

-- As on RDS: members log in with a token, and only so.
CREATE ROLE rds_iam NOLOGIN;

-- The agent, with the grants that closing sessions by itself needs.
CREATE ROLE lb_agent LOGIN IN ROLE rds_iam, pg_monitor, pg_signal_backend;
-- The agent that may close sessions only through a function of the operator's.
CREATE ROLE lb_agent_plain LOGIN IN ROLE rds_iam, pg_monitor;

-- Applications.
CREATE ROLE app LOGIN IN ROLE rds_iam;
CREATE ROLE app2 LOGIN IN ROLE rds_iam;
-- An application that still has a password.
CREATE ROLE legacy LOGIN;

-- The replicas.
CREATE ROLE replicator LOGIN REPLICATION;

-- Something to work on: rows to update, and rows that clients insert under their own ids.
CREATE TABLE stock (item integer PRIMARY KEY, amount bigint NOT NULL);
INSERT INTO stock SELECT item, 1000000 FROM generate_series(1, 1000) AS item;
CREATE TABLE orders (
    client integer NOT NULL,
    number bigint NOT NULL,
    placed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (client, number)
);
GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON stock, orders TO app, app2, legacy;
GRANT CREATE ON SCHEMA public TO app, app2, legacy;
