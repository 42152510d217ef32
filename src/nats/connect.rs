//! The way into NATS: one bounded first connect with an error that says what to do, then reconnects
//! for ever. A server that is too old or has no JetStream is refused here, and nowhere else.

use std::error::Error as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::account::Account;
use async_nats::jetstream::{self, context::ContextBuilder};
use async_nats::{Client, ConnectErrorKind, ConnectOptions, ServerAddr, ServerInfo, rustls};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::denials::{Denials, Denied};
use super::link::{Link, LinkFeed, LinkState, link, reconnect_delay};
use super::settings::{
    Auth, ConnectSettings, DEFAULT_URL, Secret, ServerUrl, TlsMode, TlsSettings,
};
use super::version::{OLDEST, ServerVersion};

/// Default limit of the first connect, over all servers.
pub const CONNECT_TIME: Duration = Duration::from_secs(5);
/// Time for an answer of JetStream's API.
pub const REQUEST_TIME: Duration = Duration::from_secs(5);
/// For how long JetStream is asked whether it is there: elections take some seconds.
const SETTLE_TIME: Duration = Duration::from_secs(10);
/// Pause between two such questions.
const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// Silence after which the client asks whether the server is there; two lost answers end the connection.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// A connection to a server that is fit for runlane.
#[derive(Debug, Clone)]
pub struct Connected {
    /// The connection; clones share it.
    pub client: Client,
    /// JetStream on it.
    pub jetstream: jetstream::Context,
    /// What JetStream's API subjects begin with: `$JS.API`, or `$JS.<domain>.API`.
    pub api_prefix: String,
    /// What the server said of itself at the first connect.
    pub server: ServerInfo,
    /// The server's version.
    pub version: ServerVersion,
    /// The account's use of JetStream and its limits, at the first connect.
    pub account: Account,
    /// The connection's state from now on.
    pub link: watch::Receiver<Link>,
    /// What its user may not do.
    pub denials: Denials,
}

/// Why there is no usable connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A server's URL can't be read.
    #[error("the server URL {url} is not valid, for example use nats://host:4222")]
    Url {
        /// The URL, without user and password.
        url: ServerUrl,
        /// What is wrong.
        source: io::Error,
    },
    /// A file that the settings name can't be used.
    #[error("the {what} {} can't be used", path.display())]
    File {
        /// What the file is.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// No server answered.
    #[error("no NATS server answers at {}; is one running there? `runlane dev` starts one", list(.servers))]
    Unreachable {
        /// The servers tried.
        servers: Vec<ServerUrl>,
        /// What the last one's attempt ended with.
        source: async_nats::ConnectError,
    },
    /// No server answered in time.
    #[error("no NATS server answered at {} within {} s; check the address, the firewall, and whether the server wants TLS first", list(.servers), limit.as_secs_f32())]
    TimedOut {
        /// The servers tried.
        servers: Vec<ServerUrl>,
        /// The limit.
        limit: Duration,
    },
    /// The server doesn't let us in.
    #[error("the NATS server at {} refuses {who}; check the credentials", list(.servers))]
    Unauthorized {
        /// The servers tried.
        servers: Vec<ServerUrl>,
        /// Who we said we are; no secret.
        who: String,
        /// What the server said.
        source: async_nats::ConnectError,
    },
    /// The encrypted connection can't be made.
    #[error("no TLS connection with the NATS server at {}; check the CA file, the certificate's names, and whether both sides want TLS", list(.servers))]
    Tls {
        /// The servers tried.
        servers: Vec<ServerUrl>,
        /// What is wrong.
        source: async_nats::ConnectError,
    },
    /// The server is too old.
    #[error(
        "the NATS server {server} has version {found}; runlane needs {OLDEST} or newer, because older ones silently ignore features that it relies on"
    )]
    TooOld {
        /// The server's name.
        server: String,
        /// Its version as it says it.
        found: String,
    },
    /// The server has no JetStream for us.
    #[error("the NATS server {server} has no JetStream{}; enable it (`jetstream {{ store_dir: … }}` in its configuration, or for the account), and allow this user `$JS.API.>`", in_domain(.domain))]
    NoJetStream {
        /// The server's name.
        server: String,
        /// The JetStream domain that was asked.
        domain: Option<String>,
        /// What the account request ended with.
        source: jetstream::context::AccountError,
    },
    /// JetStream is there and doesn't answer.
    #[error("JetStream{} does not answer on the NATS server {server}; a cluster that is electing a leader does so in some seconds, one that has lost most of its servers doesn't (`nats server report jetstream`)", in_domain(.domain))]
    NoAnswer {
        /// The server's name.
        server: String,
        /// The JetStream domain that was asked.
        domain: Option<String>,
        /// What the last request ended with.
        source: jetstream::context::AccountError,
    },
    /// The user may not use JetStream.
    #[error(
        "the NATS server {server} doesn't allow this user to {denied}; deploy/nats/users.conf has what each sort of user needs, and `inbox_prefix` says where answers go"
    )]
    Denied {
        /// The server's name.
        server: String,
        /// What was denied.
        denied: Denied,
    },
}

fn list(servers: &[ServerUrl]) -> String {
    let urls: Vec<String> = servers.iter().map(ServerUrl::without_user).collect();
    urls.join(", ")
}

fn in_domain(domain: &Option<String>) -> String {
    domain.as_ref().map_or_else(String::new, |domain| format!(" in the domain {domain}"))
}

/// Connects, checks the server, and returns the connection, which from then on reconnects for ever.
pub async fn connect(settings: &ConnectSettings) -> Result<Connected, ConnectError> {
    let servers = match &settings.servers[..] {
        [] => vec![ServerUrl::new(DEFAULT_URL)],
        servers => servers.to_vec(),
    };
    let addrs = addresses(&servers)?;
    let auth = match &settings.auth {
        Auth::None => servers.iter().find_map(ServerUrl::auth).unwrap_or_default(),
        auth => auth.clone(),
    };
    let limit = settings.connect_timeout.unwrap_or(CONNECT_TIME);
    let denials = Denials::new(settings.inbox_prefix.as_deref().unwrap_or("_INBOX"));
    let (feed, mut link) = link(denials.clone());
    let options = options(settings, servers.len(), limit, feed);
    let options = with_tls(options, &settings.tls)?;
    let options = with_auth(options, &auth).await?;
    let client = match timeout(limit, options.connect(&addrs[..])).await {
        Ok(Ok(client)) => client,
        Ok(Err(source)) => return Err(explain(servers, &auth, limit, source)),
        Err(_) => return Err(ConnectError::TimedOut { servers, limit }),
    };
    // The event comes from the client's own task; whoever gets the connection finds it up.
    let up = link.wait_for(|link| link.state == LinkState::Up);
    // Without it the connection is there all the same, and the next event sets the state right.
    timeout(REQUEST_TIME, up).await.ok();
    let server = client.server_info();
    let version = check_version(&server)?;
    let jetstream = context(&client, settings.jetstream_domain.as_deref());
    let account = check_jetstream(&jetstream, &server, settings, &denials).await?;
    Ok(Connected {
        client,
        jetstream,
        api_prefix: api_prefix(settings.jetstream_domain.as_deref()),
        server,
        version,
        account,
        link,
        denials,
    })
}

fn addresses(servers: &[ServerUrl]) -> Result<Vec<ServerAddr>, ConnectError> {
    let parse = |url: &ServerUrl| {
        url.without_user().parse().map_err(|source| ConnectError::Url { url: url.clone(), source })
    };
    servers.iter().map(parse).collect()
}

fn options(
    settings: &ConnectSettings,
    servers: usize,
    limit: Duration,
    feed: LinkFeed,
) -> ConnectOptions {
    let feed = Arc::new(feed);
    // One server that swallows packets must leave time for the others.
    let share = limit / u32::try_from(servers).unwrap_or(u32::MAX);
    let mut options = ConnectOptions::new()
        .connection_timeout(share.max(Duration::from_secs(1)))
        .request_timeout(Some(REQUEST_TIME))
        .ping_interval(PING_INTERVAL)
        .max_reconnects(None)
        .reconnect_delay_callback(move |attempt| reconnect_delay(servers, attempt))
        .event_callback(move |event| {
            let feed = Arc::clone(&feed);
            async move { feed.take(&event) }
        });
    if let Some(name) = &settings.name {
        options = options.name(name);
    }
    if let Some(prefix) = &settings.inbox_prefix {
        options = options.custom_inbox_prefix(prefix);
    }
    options
}

fn with_tls(options: ConnectOptions, tls: &TlsSettings) -> Result<ConnectOptions, ConnectError> {
    let mut options = match tls.mode {
        TlsMode::IfAsked => options,
        TlsMode::Required => options.require_tls(true),
        TlsMode::First => options.tls_first(),
    };
    if let Some(ca) = &tls.ca {
        readable("CA file", ca)?;
        options = options.add_root_certificates(ca.clone());
    }
    if let Some(identity) = &tls.identity {
        readable("client certificate", &identity.cert)?;
        readable("client key", &identity.key)?;
        options = options.add_client_certificate(identity.cert.clone(), identity.key.clone());
    }
    Ok(options)
}

/// The client reads these files only while connecting, and its error doesn't name them.
fn readable(what: &'static str, path: &Path) -> Result<(), ConnectError> {
    std::fs::File::open(path).map(drop).map_err(|source| ConnectError::File {
        what,
        path: path.to_owned(),
        source,
    })
}

async fn with_auth(options: ConnectOptions, auth: &Auth) -> Result<ConnectOptions, ConnectError> {
    match auth {
        Auth::None => Ok(options),
        Auth::UserPassword { user, password } => {
            Ok(options.user_and_password(user.clone(), password.expose().to_owned()))
        }
        Auth::Token(token) => Ok(options.token(token.expose().to_owned())),
        Auth::NkeyFile(path) => Ok(options.nkey(read_seed(path)?.expose().to_owned())),
        Auth::CredsFile(path) => options.credentials_file(path).await.map_err(|source| {
            ConnectError::File { what: "credentials file", path: path.clone(), source }
        }),
    }
}

/// Reads the seed: the first line that starts with S (a seed's first letter), as `nk -gen` writes it.
fn read_seed(path: &Path) -> Result<Secret, ConnectError> {
    let failed =
        |source| ConnectError::File { what: "nkey seed file", path: path.to_owned(), source };
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let seed = text.lines().map(str::trim).find(|line| line.starts_with('S'));
    seed.map(Secret::new).ok_or_else(|| {
        failed(io::Error::new(io::ErrorKind::InvalidData, "it has no line with a seed (SU…)"))
    })
}

fn explain(
    servers: Vec<ServerUrl>,
    auth: &Auth,
    limit: Duration,
    source: async_nats::ConnectError,
) -> ConnectError {
    match source.kind() {
        ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
            let who = who(auth);
            ConnectError::Unauthorized { servers, who, source }
        }
        ConnectErrorKind::TimedOut => ConnectError::TimedOut { servers, limit },
        ConnectErrorKind::Tls => ConnectError::Tls { servers, source },
        ConnectErrorKind::Io if is_tls(&source) => ConnectError::Tls { servers, source },
        ConnectErrorKind::Io
        | ConnectErrorKind::Dns
        | ConnectErrorKind::ServerParse
        | ConnectErrorKind::MaxReconnects => ConnectError::Unreachable { servers, source },
    }
}

/// The client reports a failed handshake as an I/O error that wraps the TLS library's.
fn is_tls(error: &async_nats::ConnectError) -> bool {
    error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>())
        .and_then(io::Error::get_ref)
        .is_some_and(|inner| inner.is::<rustls::Error>())
}

fn who(auth: &Auth) -> String {
    match auth {
        Auth::None => "a client without credentials".to_owned(),
        Auth::CredsFile(path) => format!("the credentials in {}", path.display()),
        Auth::NkeyFile(path) => format!("the nkey in {}", path.display()),
        Auth::UserPassword { user, .. } => format!("the user {user:?} with this password"),
        Auth::Token(_) => "this token".to_owned(),
    }
}

fn check_version(server: &ServerInfo) -> Result<ServerVersion, ConnectError> {
    match server.version.parse() {
        Ok(version) if version >= OLDEST => Ok(version),
        Ok(_) | Err(_) => Err(ConnectError::TooOld {
            server: server.server_name.clone(),
            found: server.version.clone(),
        }),
    }
}

fn api_prefix(domain: Option<&str>) -> String {
    domain.map_or_else(|| "$JS.API".to_owned(), |domain| format!("$JS.{domain}.API"))
}

fn context(client: &Client, domain: Option<&str>) -> jetstream::Context {
    match domain {
        Some(domain) => {
            ContextBuilder::new().domain(domain).timeout(REQUEST_TIME).build(client.clone())
        }
        None => ContextBuilder::new().timeout(REQUEST_TIME).build(client.clone()),
    }
}

/// Asks the account, not the greeting: a leaf node or a client of a cluster may have JetStream elsewhere.
async fn check_jetstream(
    jetstream: &jetstream::Context,
    server: &ServerInfo,
    settings: &ConnectSettings,
    denials: &Denials,
) -> Result<Account, ConnectError> {
    let (name, domain) = (server.server_name.clone(), settings.jetstream_domain.clone());
    let subject = format!("{}.INFO", api_prefix(domain.as_deref()));
    let deadline = Instant::now() + SETTLE_TIME;
    loop {
        let mut denials = denials.since_now();
        // Cancel safe: the answer of a request that is given up is dropped.
        let asked = tokio::select! {
            biased;
            asked = jetstream.query_account() => asked,
            denied = denials.request_to(&subject) => {
                return Err(ConnectError::Denied { server: name, denied });
            }
        };
        match asked {
            Ok(account) => return Ok(account),
            Err(error) if !is_passing(&error) => {
                return Err(ConnectError::NoJetStream { server: name, domain, source: error });
            }
            Err(source) if Instant::now() >= deadline => {
                return Err(ConnectError::NoAnswer { server: name, domain, source });
            }
            Err(_) => sleep(RETRY_PAUSE).await,
        }
    }
}

/// Whether JetStream may answer soon: it is starting, or electing a leader.
fn is_passing(error: &jetstream::context::AccountError) -> bool {
    use jetstream::context::AccountErrorKind as Kind;
    match error.kind() {
        Kind::TimedOut => true,
        // 10008: not available for now.
        Kind::JetStream(error) => error.error_code().0 == 10_008,
        Kind::JetStreamUnavailable | Kind::Other => false,
    }
}
