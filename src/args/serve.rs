//! Arguments of `akin serve`.

use std::path::PathBuf;

use clap::Args;

use super::{DecodeArg, positive};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    akin serve --index ~/Pictures --open\n  \
    akin serve -c holiday -c archive --listen 127.0.0.1:8080\n  \
    akin serve --listen 0.0.0.0:7878 --tls-cert cert.pem --tls-key key.pem\n\
    The API is described in docs/http-api.md and at /api/v1/openapi.json.")]
pub struct ServeArgs {
    /// Collection to serve; can be repeated [default: all of the home folder, or `default` with
    /// --index]
    #[arg(short, long, value_name = "NAME")]
    pub collection: Vec<String>,
    /// Folder to bring into the (first) collection in the background, which is created if there is
    /// none; can be repeated
    #[arg(long, value_name = "DIR")]
    pub index: Vec<PathBuf>,
    /// How files are decoded for collections made from now on; those there are keep their own way
    /// [default: exact, or `decode` of the configuration file]
    #[arg(long, value_enum)]
    pub decode: Option<DecodeArg>,
    /// Go on watching those folders for changes
    #[arg(long, requires = "index")]
    pub watch: bool,
    /// Address to listen on; port 0 takes one that is free
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7878")]
    pub listen: String,
    /// Open the page in the browser
    #[arg(long)]
    pub open: bool,
    /// Path before all others, for a proxy that passes on only a part of a site
    #[arg(long, value_name = "/PATH", default_value = "")]
    pub base_path: String,
    /// Folder that requests may have indexed; can be repeated [default: those of --index]
    #[arg(long, value_name = "DIR")]
    pub allow_root: Vec<PathBuf>,
    /// Largest picture in a request, in MiB
    #[arg(long, value_name = "MIB", default_value = "32", value_parser = positive)]
    pub max_upload: usize,
    /// Fetch pictures that requests name by their URL also from private networks
    #[arg(long)]
    pub allow_private_addresses: bool,
    #[command(flatten)]
    pub access: AccessArgs,
    /// Folder with the page's files, in place of those in the program
    #[cfg(debug_assertions)]
    #[arg(long, value_name = "DIR", hide = true)]
    pub ui_dir: Option<PathBuf>,
}

/// Who may come in.
#[derive(Debug, Args)]
#[command(next_help_heading = "Access")]
pub struct AccessArgs {
    /// Let everybody in who reaches the address, though there are no keys
    #[arg(long)]
    pub insecure: bool,
    /// Certificate chain in PEM form: connections are encrypted
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of the certificate, in PEM form
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Another name that this server goes by, as in `photos.example`; can be repeated
    #[arg(long, value_name = "NAME")]
    pub allow_host: Vec<String>,
    /// Address or network of a proxy that is believed when it says for whom it asks; can be repeated
    #[arg(long, value_name = "ADDRESS[/BITS]")]
    pub trusted_proxy: Vec<String>,
    /// Requests a second of one key or address; 0 for no limit
    #[arg(long, value_name = "N")]
    pub rate: Option<u32>,
}
