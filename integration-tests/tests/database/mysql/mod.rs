//! MySQL and MariaDB, on a real MariaDB.

mod scripted;
mod scripted_login;
