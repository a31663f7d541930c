//! One file per command. Each takes the loaded settings and prints for a person or a program.

pub mod access;
pub mod admin;
pub mod approvals;
pub mod arguments;
pub mod audit;
pub mod call;
pub mod config;
pub mod doctor;
pub mod guards;
pub mod key;
pub mod names;
pub mod opt_outs;
pub mod people;
pub mod plugin;
pub mod policy;
pub mod profile;
pub mod secret;
pub mod serve;
pub mod stdio;
pub mod tables;
pub mod tools;
pub mod upstream;
