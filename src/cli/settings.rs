//! From the configuration to what the other modules take.

use std::path::Path;

use super::exit::{CONFIG, Failure};
use crate::config::{self, NatsConfig, RawConfig, RunnerConfig, SecretSource};
use crate::nats::context::Contexts;
use crate::nats::settings::{
    Auth, ConnectSettings, Secret, ServerUrl, TlsIdentity, TlsMode, TlsSettings,
};
use crate::nats::topology::TopologySettings;
use crate::task::RunnerIsolation;
use crate::worker::{LineLog, Runner, SubprocessRunner};

/// `NATS_URL` counts where neither a flag, a variable of ours, a context nor a file names a server.
pub(super) fn with_nats_url(mut raw: RawConfig) -> RawConfig {
    if raw.nats.servers.is_none() && raw.nats.context.is_none() {
        let url = std::env::var("NATS_URL").ok().filter(|url| !url.is_empty());
        raw.nats.servers = url.map(|url| vec![config::Secret::new(url)]);
    }
    raw
}

/// What the connection needs. A context of the `nats` tool fills in what isn't said otherwise.
pub(super) fn connect_settings(nats: &NatsConfig, name: &str) -> Result<ConnectSettings, Failure> {
    let mut settings = match &nats.context {
        Some(context) => contexts()?.load(context)?,
        None => ConnectSettings::default(),
    };
    if !nats.servers.is_empty() {
        settings.servers = nats.servers.iter().map(ServerUrl::new).collect();
    }
    match auth(&nats.auth)? {
        Auth::None => {}
        auth => settings.auth = auth,
    }
    let context_tls = settings.tls;
    settings.tls = TlsSettings {
        mode: match (nats.tls.first, nats.tls.required) {
            (true, _) => TlsMode::First,
            (false, true) => TlsMode::Required,
            (false, false) => context_tls.mode,
        },
        ca: nats.tls.ca.clone().or(context_tls.ca),
        identity: nats.tls.client.as_ref().map_or(context_tls.identity, |client| {
            Some(TlsIdentity { cert: client.cert.clone(), key: client.key.clone() })
        }),
    };
    settings.inbox_prefix = nats.inbox_prefix.clone().or(settings.inbox_prefix);
    settings.name = Some(name.to_owned());
    Ok(settings)
}

pub(super) fn contexts() -> Result<Contexts, Failure> {
    Contexts::from_variables(|name| std::env::var_os(name)).ok_or_else(|| {
        let message = "no NATS context can be found: neither HOME nor XDG_CONFIG_HOME is set";
        Failure::new(CONFIG, message)
    })
}

fn auth(auth: &config::Auth) -> Result<Auth, Failure> {
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

fn secret(source: &SecretSource) -> Result<Secret, Failure> {
    match source {
        SecretSource::Inline(secret) => Ok(Secret::new(secret.expose())),
        SecretSource::File(path) => read_secret(path),
    }
}

fn read_secret(path: &Path) -> Result<Secret, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::new(CONFIG, format!("cannot read the secret in {}: {error}", path.display()))
    })?;
    Ok(Secret::new(text.trim_end_matches(['\r', '\n'])))
}

/// How streams are made.
pub(super) fn topology(config: &config::Config) -> TopologySettings {
    TopologySettings {
        memory: config.streams.storage == config::Storage::Memory,
        replicas: config.streams.replicas,
        tasks_max_age: config.streams.tasks_max_age,
        output_max_age: config.streams.output_max_age,
        output_max_bytes: config.streams.output_max_bytes,
        queue_max_bytes: config.streams.queue_max_bytes,
        lease: config.worker.lease,
    }
}

/// A worker's runner, with its isolation on this host.
pub(super) fn runner(runner: &RunnerConfig, isolation: RunnerIsolation) -> Box<dyn Runner> {
    let environment = std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
    let log = runner.log.map(|log| LineLog { max_line_bytes: log.max_line_bytes });
    let policy = runner.policy(environment, isolation);
    Box::new(SubprocessRunner::new(runner.name.clone(), runner.labels.clone(), policy, log))
}
