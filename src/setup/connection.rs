//! Configuration → connection.
//!
//! What the configuration says itself beats what a NATS CLI context says.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::{self, Config, NatsConfig, SecretSource, Storage, TlsConfig};
use crate::nats::context::{ContextError, Contexts};
use crate::nats::settings::{Auth, Secret, ServerUrl, TlsIdentity, TlsMode, TlsSettings};
use crate::nats::topology::TopologySettings;
use crate::nats::{Bus, ConnectError, ConnectSettings, Connected, connect};
use crate::wire::Subjects;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A file with a secret can't be read.
    #[error("cannot read the secret in {}", path.display())]
    SecretFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A NATS CLI context can't be used.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// There is no home directory to look for contexts in.
    #[error("context {name:?} can't be looked up: neither XDG_CONFIG_HOME nor HOME is set")]
    NoHome {
        /// The context.
        name: String,
    },
    /// The server can't be reached, or isn't fit.
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

/// An open connection to a namespace.
pub struct Opened {
    /// The connection and what the server said.
    pub connected: Connected,
    /// The namespace on it.
    pub bus: Bus,
}

/// Connects as the configuration says. `name` is shown in the server's list of connections.
///
/// # Errors
/// See [`SetupError`].
pub async fn open(config: &Config, name: &str) -> Result<Opened, SetupError> {
    let mut settings = connect_settings(&config.nats, |name| std::env::var_os(name))?;
    settings.name = Some(name.to_owned());
    let connected = connect(&settings).await?;
    let bus = Bus::over(&connected, Subjects::new(config.namespace.clone()));
    Ok(Opened { connected, bus })
}

/// Translates the configuration; `variable` reads the environment, to find the contexts.
///
/// # Errors
/// A secret's file or the context can't be read.
pub fn connect_settings(
    config: &NatsConfig,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<ConnectSettings, SetupError> {
    let mut settings = match &config.context {
        Some(name) => {
            let contexts = Contexts::from_variables(variable);
            contexts.ok_or_else(|| SetupError::NoHome { name: name.clone() })?.load(name)?
        }
        None => ConnectSettings::default(),
    };
    if !config.servers.is_empty() {
        settings.servers = config.servers.iter().map(ServerUrl::new).collect();
    }
    if config.auth != config::Auth::None {
        settings.auth = auth(&config.auth)?;
    }
    if config.tls != TlsConfig::default() {
        settings.tls = tls(&config.tls);
    }
    settings.inbox_prefix = config.inbox_prefix.clone().or(settings.inbox_prefix);
    Ok(settings)
}

/// Translates the configuration of streams and leases.
pub fn topology_settings(config: &Config) -> TopologySettings {
    TopologySettings {
        replicas: config.streams.replicas,
        memory: match config.streams.storage {
            Storage::File => false,
            Storage::Memory => true,
        },
        tasks_max_age: config.streams.tasks_max_age,
        output_max_age: config.streams.output_max_age,
        output_max_bytes: config.streams.output_max_bytes,
        queue_max_bytes: config.streams.queue_max_bytes,
        lease: config.worker.lease,
    }
}

fn auth(auth: &config::Auth) -> Result<Auth, SetupError> {
    Ok(match auth {
        config::Auth::None => Auth::None,
        config::Auth::CredsFile(path) => Auth::CredsFile(path.clone()),
        config::Auth::NkeySeedFile(path) => Auth::NkeyFile(path.clone()),
        config::Auth::UserPassword { user, password } => {
            Auth::UserPassword { user: user.clone(), password: secret(password)? }
        }
        config::Auth::Token(token) => Auth::Token(secret(token)?),
    })
}

fn secret(source: &SecretSource) -> Result<Secret, SetupError> {
    match source {
        SecretSource::Inline(secret) => Ok(Secret::new(secret.expose())),
        SecretSource::File(path) => read_secret(path),
    }
}

fn read_secret(path: &Path) -> Result<Secret, SetupError> {
    let read = fs::read_to_string(path);
    let text = read.map_err(|source| SetupError::SecretFile { path: path.to_owned(), source })?;
    Ok(Secret::new(text.trim_end_matches(['\r', '\n'])))
}

fn tls(tls: &TlsConfig) -> TlsSettings {
    let mode = match (tls.first, tls.required) {
        (true, _) => TlsMode::First,
        (false, true) => TlsMode::Required,
        (false, false) => TlsMode::IfAsked,
    };
    let identity = tls.client.as_ref();
    TlsSettings {
        mode,
        ca: tls.ca.clone(),
        identity: identity.map(|own| TlsIdentity { cert: own.cert.clone(), key: own.key.clone() }),
    }
}
