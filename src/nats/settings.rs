//! What a connection needs to know. Secrets never show in `Debug`.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// The server if none is named.
pub const DEFAULT_URL: &str = "nats://127.0.0.1:4222";

/// How to reach and enter a NATS server.
#[derive(Debug, Clone, Default)]
pub struct ConnectSettings {
    /// Server URLs; several are one cluster. User and password (or a token) in a URL count if `auth`
    /// is [`Auth::None`]. Empty: [`DEFAULT_URL`].
    pub servers: Vec<ServerUrl>,
    /// Who we are.
    pub auth: Auth,
    /// Encryption.
    pub tls: TlsSettings,
    /// Prefix of reply subjects; none: `_INBOX`.
    pub inbox_prefix: Option<String>,
    /// JetStream domain; none: the server's own.
    pub jetstream_domain: Option<String>,
    /// Name shown in the server's connection list.
    pub name: Option<String>,
    /// Limit of the first connect, over all servers; none: 5 s.
    pub connect_timeout: Option<Duration>,
}

/// A server URL. `Display` and `Debug` leave out its user and password.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerUrl(String);

impl ServerUrl {
    /// Takes a URL as typed, with or without `nats://`.
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into().trim().to_owned())
    }

    /// Splits a comma-separated list, as in `NATS_URL`.
    pub fn list(text: &str) -> Vec<Self> {
        let urls = text.split(',').map(str::trim).filter(|url| !url.is_empty());
        urls.map(Self::new).collect()
    }

    /// Returns the URL without user and password.
    pub fn without_user(&self) -> String {
        let (scheme, rest) = self.split_scheme();
        let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        format!("{scheme}{rest}")
    }

    /// Returns the URL's user and password, or its token, decoded.
    pub(super) fn auth(&self) -> Option<Auth> {
        let (_, rest) = self.split_scheme();
        let (user, _) = rest.rsplit_once('@')?;
        Some(match user.split_once(':') {
            Some((user, password)) => {
                Auth::UserPassword { user: decode(user), password: Secret::new(decode(password)) }
            }
            None => Auth::Token(Secret::new(decode(user))),
        })
    }

    fn split_scheme(&self) -> (&str, &str) {
        match self.0.find("://") {
            Some(at) => self.0.split_at(at + 3),
            None => ("", &self.0),
        }
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.without_user())
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.without_user())
    }
}

/// Decodes `%XX` (RFC 3986, 2.1); anything else stays as it is.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = (first == b'%').then(|| after.get(..2)).flatten();
        let hex = hex.and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Who we are for the server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Auth {
    /// Nobody in particular.
    #[default]
    None,
    /// A `.creds` file with a JWT and its seed.
    CredsFile(PathBuf),
    /// A file with an nkey seed.
    NkeyFile(PathBuf),
    /// A user and a password.
    UserPassword {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A token.
    Token(Secret),
}

/// A text that `Debug` doesn't print.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Encryption of the connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsSettings {
    /// When the connection is encrypted.
    pub mode: TlsMode,
    /// A PEM file of the certificate authorities to trust; none: the system's.
    pub ca: Option<PathBuf>,
    /// Our own certificate and its key, for servers that ask for one.
    pub identity: Option<TlsIdentity>,
}

/// When the connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsMode {
    /// If the server asks for it, or the URL is `tls://`.
    #[default]
    IfAsked,
    /// Always: a server without TLS is refused.
    Required,
    /// From the first byte, before the server's greeting (its `handshake_first`).
    First,
}

/// A client certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsIdentity {
    /// PEM file of the certificate chain.
    pub cert: PathBuf,
    /// PEM file of the private key.
    pub key: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_shows_in_debug_or_display() {
        let settings = ConnectSettings {
            servers: ServerUrl::list("nats://me:hunter2@a:4222, s3cret@b:1"),
            auth: Auth::Token(Secret::new("hunter2")),
            ..ConnectSettings::default()
        };
        let shown = format!("{settings:?} {} {}", settings.servers[0], settings.servers[1]);
        assert!(!shown.contains("hunter2") && !shown.contains("s3cret"), "{shown}");
        assert!(shown.contains("nats://a:4222 b:1"), "{shown}");
    }

    #[test]
    fn user_password_and_token_are_read_from_the_url() {
        let auth = |url: &str| ServerUrl::new(url).auth();
        let user = |user: &str, password: &str| Auth::UserPassword {
            user: user.to_owned(),
            password: Secret::new(password),
        };
        assert_eq!(auth("nats://me:a%40b%zz@host:4222"), Some(user("me", "a@b%zz")));
        assert_eq!(auth("nats://tok@host"), Some(Auth::Token(Secret::new("tok"))));
        assert_eq!(auth("host:4222"), None);
    }
}
