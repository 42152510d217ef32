//! How to reach NATS.

use std::path::PathBuf;

use super::raw::{RawNats, RawTls};
use super::report::Report;
use super::secret::Secret;

const DEFAULT_SERVER: &str = "nats://127.0.0.1:4222";
const SCHEMES: [&str; 4] = ["nats://", "tls://", "ws://", "wss://"];

/// How to reach NATS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatsConfig {
    /// URLs without user and password. Empty only if `context` brings them.
    pub servers: Vec<String>,
    /// How the worker proves who it is.
    pub auth: Auth,
    /// TLS.
    pub tls: TlsConfig,
    /// Context of the NATS command line tool that fills in what isn't said here.
    pub context: Option<String>,
    /// Prefix of reply subjects. None: the client's, `_INBOX`.
    pub inbox_prefix: Option<String>,
}

/// How one proves who one is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// Not at all, or by the client certificate.
    None,
    /// With a credentials file.
    CredsFile(PathBuf),
    /// With an nkey whose seed is in a file.
    NkeySeedFile(PathBuf),
    /// With a name and a password.
    UserPassword {
        /// The name.
        user: String,
        /// The password.
        password: SecretSource,
    },
    /// With a token.
    Token(SecretSource),
}

/// Where a secret is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// It was given itself.
    Inline(Secret),
    /// The file's content, without the line end.
    File(PathBuf),
}

/// TLS of the connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsConfig {
    /// Certificates of authorities to trust, besides the system's.
    pub ca: Option<PathBuf>,
    /// The client's certificate.
    pub client: Option<ClientCert>,
    /// Refuse a server without TLS.
    pub required: bool,
    /// Begin with TLS, before the server says anything.
    pub first: bool,
}

/// A client's certificate with its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCert {
    /// File with the certificate.
    pub cert: PathBuf,
    /// File with its key.
    pub key: PathBuf,
}

pub(super) fn resolve(raw: RawNats, report: &mut Report) -> NatsConfig {
    let named = raw.servers.clone();
    let default = raw.context.is_none().then(|| Secret::new(DEFAULT_SERVER));
    let given = named.clone().unwrap_or_else(|| default.into_iter().collect());
    let mut servers = Vec::new();
    let mut in_urls = Vec::new();
    for url in given.iter().flat_map(|text| text.expose().split(',')) {
        if let Some((server, login)) = server(url.trim(), report) {
            servers.push(server);
            in_urls.extend(login.filter(|login| !in_urls.contains(login)));
        }
    }
    if named.is_some_and(|named| named.is_empty()) {
        report.add("nats.servers", "is empty; name at least one server");
    }
    check_inbox(raw.inbox_prefix.as_deref(), report);
    NatsConfig {
        servers,
        tls: tls(raw.tls.clone(), report),
        context: raw.context.clone(),
        inbox_prefix: raw.inbox_prefix.clone(),
        auth: auth(raw, in_urls, report),
    }
}

/// Takes a URL apart: `nats://user:password@host:port` or `nats://token@host:port`.
fn server(url: &str, report: &mut Report) -> Option<(String, Option<Auth>)> {
    let scheme = SCHEMES.iter().find(|scheme| url.starts_with(**scheme));
    // The text isn't repeated in a message: it may hold a password.
    let (scheme, rest) = match scheme {
        Some(scheme) => (*scheme, &url[scheme.len()..]),
        None if url.contains("://") => {
            let schemes = SCHEMES.join(", ");
            report.add("nats.servers", format!("has a URL of another kind than {schemes}"));
            return None;
        }
        None => ("nats://", url),
    };
    let (login, address) = match rest.rsplit_once('@') {
        Some((login, address)) => (Some(login), address),
        None => (None, rest),
    };
    if address.is_empty() || address.contains(char::is_whitespace) {
        report.add("nats.servers", "has a URL without a host; write it like nats://host:4222");
        return None;
    }
    let login = login.map(|login| match login.split_once(':') {
        Some((user, password)) => Auth::UserPassword {
            user: decoded(user),
            password: SecretSource::Inline(Secret::new(decoded(password))),
        },
        None => Auth::Token(SecretSource::Inline(Secret::new(decoded(login)))),
    });
    Some((format!("{scheme}{address}"), login))
}

/// Undoes percent-encoding; what isn't encoded, or badly so, stays.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                plain.push(byte);
                at += 3;
            }
            None => {
                plain.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

fn auth(raw: RawNats, in_urls: Vec<Auth>, report: &mut Report) -> Auth {
    let password = source("password", raw.password, raw.password_file, report);
    let token = source("token", raw.token, raw.token_file, report);
    let user = match (raw.user, password) {
        (Some(user), Some(password)) => Some(Auth::UserPassword { user, password }),
        (None, None) => None,
        (Some(_), None) => {
            report.add("nats.user", "has no password; set password_file or password");
            None
        }
        (None, Some(_)) => {
            report.add("nats.password", "has no user; set user");
            None
        }
    };
    let creds = raw.creds.map(Auth::CredsFile);
    let nkey = raw.nkey.map(Auth::NkeySeedFile);
    let ways = [creds, nkey, user, token.map(Auth::Token)];
    let mut ways: Vec<Auth> = ways.into_iter().flatten().chain(in_urls).collect();
    if ways.len() > 1 {
        let one = "use one of creds, nkey, user with password, token, and a login in the URL";
        report.add("nats", format!("has {} ways to log in; {one}", ways.len()));
    }
    ways.pop().unwrap_or(Auth::None)
}

fn source(
    name: &str,
    text: Option<Secret>,
    file: Option<PathBuf>,
    report: &mut Report,
) -> Option<SecretSource> {
    if text.is_some() && file.is_some() {
        report.add(format!("nats.{name}"), format!("stands beside {name}_file; keep one of them"));
    }
    file.map(SecretSource::File).or(text.map(SecretSource::Inline))
}

fn tls(raw: RawTls, report: &mut Report) -> TlsConfig {
    let client = match (raw.cert, raw.key) {
        (Some(cert), Some(key)) => Some(ClientCert { cert, key }),
        (None, None) => None,
        (Some(_), None) => {
            report.add("nats.tls.cert", "has no key; set nats.tls.key");
            None
        }
        (None, Some(_)) => {
            report.add("nats.tls.key", "has no certificate; set nats.tls.cert");
            None
        }
    };
    let (required, first) = (raw.required.unwrap_or(false), raw.first.unwrap_or(false));
    TlsConfig { ca: raw.ca, client, required, first }
}

fn check_inbox(prefix: Option<&str>, report: &mut Report) {
    let token = |token: &str| {
        let bad = |c: char| c.is_whitespace() || c.is_control() || c == '*' || c == '>';
        !token.is_empty() && !token.contains(bad)
    };
    if prefix.is_some_and(|prefix| !prefix.split('.').all(token)) {
        report.add("nats.inbox_prefix", "is not a subject; write it like _INBOX or my.inbox");
    }
}
