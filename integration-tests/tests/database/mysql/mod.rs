//! MySQL and MariaDB, on a real MariaDB.

mod activity;
mod clients;
mod lab;
mod login;
mod names;
mod retire;
mod rights;
mod role;
mod scripted;
mod scripted_login;
