//! PostgreSQL.

mod activity;
mod lab;
mod login;
mod own_session;
mod retire;
mod rights;
mod role;
mod scripted;
mod scripted_login;
