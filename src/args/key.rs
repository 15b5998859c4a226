//! `akin key`, as typed.

use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key and show it, once
    Create(KeyCreateArgs),
    /// List all keys there are or were
    List,
    /// End a key; a running server refuses it from the next request on
    Revoke(KeyRevokeArgs),
}

#[derive(Debug, Args)]
pub struct KeyCreateArgs {
    /// What the holder may do
    #[arg(long, value_enum, default_value = "read")]
    pub role: RoleArg,
    /// What the key is for, to tell it from others
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub name: String,
}

#[derive(Debug, Args)]
pub struct KeyRevokeArgs {
    /// Id of the key
    #[arg(value_name = "ID")]
    pub id: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum RoleArg {
    /// Search and look
    Read,
    /// Add, change and remove images, start jobs, review
    Write,
    /// Create and compact collections, take snapshots
    Admin,
}
