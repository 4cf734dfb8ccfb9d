//! MySQL and MariaDB, on a real MariaDB.

mod activity;
mod catch;
mod clients;
mod lab;
mod login;
mod names;
mod own_session;
mod procedure;
mod retire;
mod retirement;
mod rights;
mod role;
mod scripted;
mod scripted_login;
mod unseen;
