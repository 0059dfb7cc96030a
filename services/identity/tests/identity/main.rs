//! The identity service over gRPC, on SQLite and on MariaDB.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod accounts;
mod domains;
mod install;
mod limits;
mod login;
mod roles;
mod users;
mod world;
