//! The contexts of the `nats` command line tool: one JSON file each in `~/.config/nats/context`.
//!
//! The files are that tool's (github.com/nats-io/jsm.go, natscontext), so fields that we don't know
//! are ignored.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::settings::{
    Auth, ConnectSettings, Secret, ServerUrl, TlsIdentity, TlsMode, TlsSettings,
};

/// The directory that holds the contexts and the selection.
#[derive(Debug, Clone)]
pub struct Contexts {
    dir: PathBuf,
    home: Option<PathBuf>,
}

/// Why a context can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// There is no such context.
    #[error("there is no NATS context {name:?} in {}; {}", dir.display(), existing(.exist))]
    Unknown {
        /// The name asked for.
        name: String,
        /// Where it was looked for.
        dir: PathBuf,
        /// The names that exist.
        exist: Vec<String>,
    },
    /// The name can't be a file's.
    #[error(
        "{name:?} can't be the name of a NATS context: it may not be empty, and may not have / or .."
    )]
    Name {
        /// The name.
        name: String,
    },
    /// The file can't be read.
    #[error("the NATS context file {} can't be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not a context.
    #[error("the NATS context file {} is not valid", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The context uses something that runlane doesn't have.
    #[error("the NATS context {name:?} uses `{field}`, which runlane doesn't support")]
    Unsupported {
        /// The context.
        name: String,
        /// The field.
        field: &'static str,
    },
}

fn existing(names: &[String]) -> String {
    if names.is_empty() {
        "there are none (`nats context add` makes one)".to_owned()
    } else {
        format!("there are {}", names.join(", "))
    }
}

/// The file's fields that concern a connection. An empty text is an unset field.
#[derive(Deserialize, Default)]
#[serde(default)]
struct File {
    url: String,
    user: String,
    password: String,
    token: String,
    creds: String,
    nkey: String,
    user_jwt: String,
    nsc: String,
    socks_proxy: String,
    cert: String,
    key: String,
    ca: String,
    inbox_prefix: String,
    jetstream_domain: String,
    jetstream_api_prefix: String,
    tls_first: bool,
}

impl Contexts {
    /// Finds the directory from `XDG_CONFIG_HOME` or `HOME`, looked up with `variable`; none if
    /// neither is set.
    pub fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Option<Self> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = set("HOME");
        let config =
            set("XDG_CONFIG_HOME").or_else(|| home.as_ref().map(|home| home.join(".config")))?;
        Some(Self { dir: config.join("nats"), home })
    }

    /// Returns the directory that they are in.
    pub fn directory(&self) -> &Path {
        &self.dir
    }

    /// Returns the selected context's name, if one is selected.
    pub fn selected(&self) -> Result<Option<String>, ContextError> {
        let path = self.dir.join("context.txt");
        match std::fs::read_to_string(&path) {
            Ok(name) => Ok(Some(name.trim().to_owned()).filter(|name| !name.is_empty())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ContextError::Read { path, source }),
        }
    }

    /// Returns the names of all contexts, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.join("context")).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".json")?.to_owned()))
            .collect();
        names.sort();
        names
    }

    /// Reads a context.
    pub fn load(&self, name: &str) -> Result<ConnectSettings, ContextError> {
        // The rule of the tool itself.
        if name.is_empty() || name.contains("..") || name.contains('/') {
            return Err(ContextError::Name { name: name.to_owned() });
        }
        let path = self.dir.join("context").join(format!("{name}.json"));
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ContextError::Unknown {
                    name: name.to_owned(),
                    dir: self.dir.join("context"),
                    exist: self.names(),
                });
            }
            Err(source) => return Err(ContextError::Read { path, source }),
        };
        let file: File =
            serde_json::from_slice(&text).map_err(|source| ContextError::Parse { path, source })?;
        self.settings(name, &file)
    }

    fn settings(&self, name: &str, file: &File) -> Result<ConnectSettings, ContextError> {
        let refused = [
            ("user_jwt", &file.user_jwt),
            ("nsc", &file.nsc),
            ("socks_proxy", &file.socks_proxy),
            ("jetstream_api_prefix", &file.jetstream_api_prefix),
        ];
        if let Some((field, _)) = refused.into_iter().find(|(_, value)| !value.is_empty()) {
            return Err(ContextError::Unsupported { name: name.to_owned(), field });
        }
        let text = |value: &str| Some(value.to_owned()).filter(|value| !value.is_empty());
        Ok(ConnectSettings {
            servers: ServerUrl::list(&file.url),
            auth: self.auth(file),
            tls: TlsSettings {
                mode: if file.tls_first { TlsMode::First } else { TlsMode::IfAsked },
                ca: self.path(&file.ca),
                identity: self
                    .path(&file.cert)
                    .zip(self.path(&file.key))
                    .map(|(cert, key)| TlsIdentity { cert, key }),
            },
            inbox_prefix: text(&file.inbox_prefix),
            jetstream_domain: text(&file.jetstream_domain),
            ..ConnectSettings::default()
        })
    }

    /// The order of the tool: user, then credentials, then nkey, then token.
    fn auth(&self, file: &File) -> Auth {
        if !file.user.is_empty() {
            return Auth::UserPassword {
                user: file.user.clone(),
                password: Secret::new(&file.password),
            };
        }
        if let Some(creds) = self.path(&file.creds) {
            return Auth::CredsFile(creds);
        }
        if let Some(nkey) = self.path(&file.nkey) {
            return Auth::NkeyFile(nkey);
        }
        if file.token.is_empty() { Auth::None } else { Auth::Token(Secret::new(&file.token)) }
    }

    /// Reads a path as the tool does: `~/` is the home directory.
    fn path(&self, text: &str) -> Option<PathBuf> {
        let path = match (text.strip_prefix("~/"), &self.home) {
            (Some(rest), Some(home)) => home.join(rest),
            _ => Path::new(text).to_owned(),
        };
        Some(path).filter(|_| !text.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contexts(files: &[(&str, &str)]) -> (tempfile::TempDir, Contexts) {
        let home = tempfile::tempdir().expect("temp dir");
        let dir = home.path().join(".config/nats");
        std::fs::create_dir_all(dir.join("context")).expect("temp dir");
        for (name, text) in files {
            std::fs::write(dir.join(name), text).expect("temp dir");
        }
        let home_dir = home.path().as_os_str().to_owned();
        let contexts = Contexts::from_variables(|name| (name == "HOME").then(|| home_dir.clone()));
        (home, contexts.expect("home is set"))
    }

    #[test]
    fn a_context_of_the_tool_is_read_and_its_unknown_fields_are_ignored() {
        let text = r#"{"description":"","url":"tls://a:1,tls://b:2","socks_proxy":"","token":"","user":"",
            "password":"","creds":"~/my.creds","nkey":"","cert":"/c.pem","key":"/k.pem","ca":"~/ca.pem","nsc":"",
            "jetstream_domain":"hub","jetstream_api_prefix":"","inbox_prefix":"_ME","user_jwt":"","color_scheme":"",
            "tls_first":true,"windows_ca_certs_match":null}"#;
        let (home, contexts) = contexts(&[("context/prod.json", text), ("context.txt", "prod\n")]);
        assert_eq!(contexts.selected().expect("readable"), Some("prod".to_owned()));
        let settings = contexts.load("prod").expect("valid");
        assert_eq!(settings.servers, ServerUrl::list("tls://a:1,tls://b:2"));
        assert_eq!(settings.auth, Auth::CredsFile(home.path().join("my.creds")));
        assert_eq!(settings.tls.mode, TlsMode::First);
        assert_eq!(settings.tls.ca, Some(home.path().join("ca.pem")));
        assert!(settings.tls.identity.is_some());
        assert_eq!(settings.inbox_prefix.as_deref(), Some("_ME"));
        assert_eq!(settings.jetstream_domain.as_deref(), Some("hub"));
    }

    #[test]
    fn an_unknown_context_names_those_that_exist() {
        let (_home, contexts) = contexts(&[("context/b.json", "{}"), ("context/a.json", "{")]);
        let error = contexts.load("prod").expect_err("unknown").to_string();
        assert!(error.contains("\"prod\"") && error.ends_with("there are a, b"), "{error}");
        assert!(matches!(contexts.load("a"), Err(ContextError::Parse { .. })));
        assert!(matches!(contexts.load("../b"), Err(ContextError::Name { .. })));
        assert_eq!(contexts.selected().expect("readable"), None);
    }

    #[test]
    fn a_way_in_that_we_lack_is_refused_and_not_ignored() {
        let (_home, contexts) = contexts(&[("context/x.json", r#"{"nsc":"nsc://o/a/u"}"#)]);
        assert!(matches!(contexts.load("x"), Err(ContextError::Unsupported { field: "nsc", .. })));
    }
}
