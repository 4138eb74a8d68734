//! The acknowledged-write checker on real servers: promises that are broken on purpose are found out, promises that are kept are not.

mod cluster;
mod plain;
