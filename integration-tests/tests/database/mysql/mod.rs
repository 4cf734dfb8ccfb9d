//! MySQL and MariaDB, on a real MariaDB.
