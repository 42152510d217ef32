//! The flags of every verb, and the connection that they describe.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use clap::builder::FalseyValueParser;

use super::exit::Failure;
use super::settings;
use crate::client::Client;
use crate::config::{Config, RawConfig, Secret};
use crate::nats::Bus;
use crate::nats::connect::{Connected, connect};
use crate::wire::Subjects;

/// Flags of every verb.
#[derive(Debug, Clone, Args)]
pub(super) struct GlobalArgs {
    /// URL of the NATS server; several, separated by commas, are one cluster. Without it NATS_URL
    /// counts, then nats://127.0.0.1:4222
    #[arg(long, short = 's', global = true, env = "RUNLANE_SERVER", value_name = "URL")]
    #[arg(hide_env_values = true, help_heading = "Connection")]
    pub(super) server: Option<String>,

    /// Context of the `nats` command line tool to take URL and credentials from
    #[arg(long, global = true, env = "RUNLANE_CONTEXT", value_name = "NAME")]
    #[arg(help_heading = "Connection")]
    context: Option<String>,

    /// Credentials file (JWT and seed)
    #[arg(long, global = true, env = "RUNLANE_CREDS", value_name = "FILE")]
    #[arg(help_heading = "Connection")]
    creds: Option<PathBuf>,

    /// File with an nkey seed
    #[arg(long, global = true, env = "RUNLANE_NKEY", value_name = "FILE")]
    #[arg(help_heading = "Connection")]
    nkey: Option<PathBuf>,

    /// User name; needs a password
    #[arg(long, global = true, env = "RUNLANE_USER", value_name = "NAME")]
    #[arg(help_heading = "Connection")]
    user: Option<String>,

    /// Password of the user; other users of this machine can see a flag, so better use the variable
    #[arg(long, global = true, env = "RUNLANE_PASSWORD", hide_env_values = true)]
    #[arg(value_name = "TEXT", help_heading = "Connection")]
    password: Option<String>,

    /// Token; other users of this machine can see a flag, so better use the variable
    #[arg(long, global = true, env = "RUNLANE_TOKEN", hide_env_values = true)]
    #[arg(value_name = "TEXT", help_heading = "Connection")]
    token: Option<String>,

    /// PEM file of the certificate authorities to trust, besides the system's
    #[arg(long, global = true, env = "RUNLANE_TLS_CA", value_name = "FILE")]
    #[arg(help_heading = "Connection")]
    tls_ca: Option<PathBuf>,

    /// PEM file of our own certificate, for servers that ask for one
    #[arg(long, global = true, env = "RUNLANE_TLS_CERT", value_name = "FILE")]
    #[arg(help_heading = "Connection")]
    tls_cert: Option<PathBuf>,

    /// PEM file of our certificate's key
    #[arg(long, global = true, env = "RUNLANE_TLS_KEY", value_name = "FILE")]
    #[arg(help_heading = "Connection")]
    tls_key: Option<PathBuf>,

    /// Refuse a server without TLS
    #[arg(long, global = true, env = "RUNLANE_TLS", value_parser = FalseyValueParser::new())]
    #[arg(help_heading = "Connection")]
    tls: bool,

    /// Begin with TLS, for servers with `handshake_first`
    #[arg(long, global = true, env = "RUNLANE_TLS_FIRST", value_parser = FalseyValueParser::new())]
    #[arg(help_heading = "Connection")]
    tls_first: bool,

    /// First token of every subject; separates installations on one server [default: runlane]
    #[arg(long, short = 'n', global = true, env = "RUNLANE_NAMESPACE", value_name = "NAME")]
    namespace: Option<String>,

    /// Print JSON, one document or one object a line, in place of tables, output and results
    #[arg(long, global = true, env = "RUNLANE_JSON", value_parser = FalseyValueParser::new())]
    pub(super) json: bool,

    /// Print no notes on stderr, errors only, and no results that the exit code tells
    #[arg(long, short = 'q', global = true, env = "RUNLANE_QUIET")]
    #[arg(value_parser = FalseyValueParser::new())]
    pub(super) quiet: bool,

    /// Log to stderr, in the syntax of RUST_LOG, such as runlane=debug,warn. Without it only `worker`
    /// and `dev` log
    #[arg(long, global = true, env = "RUNLANE_LOG", value_name = "FILTER")]
    pub(super) log: Option<String>,

    /// How log lines are written: text or json
    #[arg(long, global = true, env = "RUNLANE_LOG_FORMAT", value_name = "FORMAT")]
    log_format: Option<String>,
}

impl GlobalArgs {
    /// What the flags and variables say, to be laid over a file.
    pub(super) fn overrides(&self) -> RawConfig {
        let mut raw = RawConfig { namespace: self.namespace.clone(), ..RawConfig::default() };
        let nats = &mut raw.nats;
        nats.servers = self.server.as_ref().map(|url| vec![Secret::new(url)]);
        nats.context = self.context.clone();
        nats.creds = self.creds.clone();
        nats.nkey = self.nkey.clone();
        nats.user = self.user.clone();
        nats.password = self.password.as_ref().map(Secret::new);
        nats.token = self.token.as_ref().map(Secret::new);
        nats.tls.ca = self.tls_ca.clone();
        nats.tls.cert = self.tls_cert.clone();
        nats.tls.key = self.tls_key.clone();
        nats.tls.required = self.tls.then_some(true);
        nats.tls.first = self.tls_first.then_some(true);
        raw.log.filter = self.log.clone();
        raw.log.format = self.log_format.clone();
        raw
    }

    /// The connection as variables of another process of this program. None: to be removed there.
    pub(super) fn connection_variables(&self) -> [(&'static str, Option<OsString>); 13] {
        let text = |value: &Option<String>| value.as_ref().map(OsString::from);
        let path = |value: &Option<PathBuf>| value.as_ref().map(OsString::from);
        let flag = |value: bool| value.then(|| OsString::from("1"));
        [
            ("RUNLANE_SERVER", text(&self.server)),
            ("RUNLANE_CONTEXT", text(&self.context)),
            ("RUNLANE_CREDS", path(&self.creds)),
            ("RUNLANE_NKEY", path(&self.nkey)),
            ("RUNLANE_USER", text(&self.user)),
            ("RUNLANE_PASSWORD", text(&self.password)),
            ("RUNLANE_TOKEN", text(&self.token)),
            ("RUNLANE_TLS_CA", path(&self.tls_ca)),
            ("RUNLANE_TLS_CERT", path(&self.tls_cert)),
            ("RUNLANE_TLS_KEY", path(&self.tls_key)),
            ("RUNLANE_TLS", flag(self.tls)),
            ("RUNLANE_TLS_FIRST", flag(self.tls_first)),
            ("RUNLANE_NAMESPACE", text(&self.namespace)),
        ]
    }

    /// Resolves flags and variables without a file.
    pub(super) fn config(&self) -> Result<Config, Failure> {
        Ok(Config::load(None, settings::with_nats_url(self.overrides()))?)
    }

    /// Connects a client.
    pub(super) async fn client(&self) -> Result<Client, Failure> {
        let (_, bus) = open(&self.config()?, "runlane").await?;
        Ok(Client::new(bus))
    }

    /// Tells a person something, unless asked not to.
    pub(super) fn note(&self, text: impl AsRef<str>) {
        if !self.quiet {
            super::say::note(text);
        }
    }
}

/// Connects as a configuration says.
pub(super) async fn open(config: &Config, name: &str) -> Result<(Connected, Bus), Failure> {
    let connected = connect(&settings::connect_settings(&config.nats, name)?).await?;
    let bus = Bus::over(&connected, Subjects::new(config.namespace.clone()));
    Ok((connected, bus))
}
