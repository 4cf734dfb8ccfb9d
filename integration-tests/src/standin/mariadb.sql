-- What is in the stand-in's databases. Run once, on the writer, before the replicas are made.
-- The agent's users are made by the operator's scripts.

-- Applications.
CREATE USER app IDENTIFIED VIA pam USING 'rds_iam' REQUIRE SSL;
CREATE USER app2 IDENTIFIED VIA pam USING 'rds_iam' REQUIRE SSL;
-- An application that still has a password, which is set apart.
CREATE USER legacy REQUIRE SSL ACCOUNT LOCK;

-- The replicas; the password is set apart.
CREATE USER replicator REQUIRE SSL ACCOUNT LOCK;
GRANT REPLICATION SLAVE ON *.* TO replicator;

-- Something to work on: rows to update, and rows that clients insert under their own ids.
CREATE DATABASE orders;
USE orders;
CREATE TABLE stock (item integer PRIMARY KEY, amount bigint NOT NULL);
INSERT INTO stock WITH RECURSIVE items (item) AS (SELECT 1 UNION ALL SELECT item + 1 FROM items WHERE item < 1000)
    SELECT item, 1000000 FROM items;
CREATE TABLE orders (
    client integer NOT NULL,
    number bigint NOT NULL,
    placed_at timestamp(6) NOT NULL DEFAULT current_timestamp(6),
    PRIMARY KEY (client, number)
);
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, LOCK TABLES, CREATE TEMPORARY TABLES ON orders.*
    TO app, app2, legacy;
