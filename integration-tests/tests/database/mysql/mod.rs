//! MySQL and MariaDB, on a real MariaDB.

mod lab;
mod login;
mod scripted;
mod scripted_login;
