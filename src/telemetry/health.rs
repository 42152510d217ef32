//! One small HTTP server: `/metrics`, `/healthz` (the process answers), `/readyz` (it takes tasks).
//!
//! Bounds: [`MAX_CONNECTIONS`] at once (more wait in the kernel's queue), [`CONNECTION_TIME`] for each,
//! no keep-alive, no request bodies read.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::metrics::Metrics;

/// Connections served at once.
pub const MAX_CONNECTIONS: usize = 64;
/// Time after which a connection is closed, whatever it does.
pub const CONNECTION_TIME: Duration = Duration::from_secs(10);
/// Time that open connections get at shutdown.
pub const SHUTDOWN_TIME: Duration = Duration::from_secs(1);

const UPKEEP: Duration = Duration::from_secs(5);
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// The media type of Prometheus' text format (prometheus.io/docs/instrumenting/exposition_formats).
const PROMETHEUS: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Whether the worker takes tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It does.
    Ready,
    /// It doesn't, for these reasons.
    NotReady(Vec<String>),
}

/// A bound health server.
#[derive(Debug)]
pub struct HealthServer {
    listener: TcpListener,
    state: State,
}

#[derive(Debug, Clone)]
struct State {
    metrics: Option<Metrics>,
    readiness: watch::Receiver<Readiness>,
}

impl HealthServer {
    /// Binds `addr` (port 0: a free one). Without `metrics`, `/metrics` is not found. Errors: the
    /// address can't be bound.
    pub async fn bind(
        addr: SocketAddr,
        metrics: Option<Metrics>,
        readiness: watch::Receiver<Readiness>,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let state = State { metrics, readiness };
        Ok(Self { listener, state })
    }

    /// Returns the bound address.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown`, then gives the open connections [`SHUTDOWN_TIME`] to get their answers.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let mut shutdown = std::pin::pin!(shutdown);
        let mut connections = JoinSet::new();
        let mut upkeep = interval(UPKEEP);
        upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let room = connections.len() < MAX_CONNECTIONS;
            // Cancel safe: accept, join_next and tick take nothing when dropped.
            tokio::select! {
                accepted = self.listener.accept(), if room => self.serve(accepted, &mut connections).await,
                Some(_) = connections.join_next() => {}
                _ = upkeep.tick() => self.state.upkeep(),
                () = &mut shutdown => break,
            }
        }
        drop(self.listener);
        let answered = async { while connections.join_next().await.is_some() {} };
        if timeout(SHUTDOWN_TIME, answered).await.is_err() {
            connections.shutdown().await;
        }
    }

    async fn serve(
        &self,
        accepted: std::io::Result<(TcpStream, SocketAddr)>,
        connections: &mut JoinSet<()>,
    ) {
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(connection(stream, self.state.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "health server can't accept a connection");
                // Out of descriptors: the error comes back at once, and would be a busy loop.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

impl State {
    fn upkeep(&self) {
        if let Some(metrics) = &self.metrics {
            metrics.upkeep();
        }
    }
}

async fn connection(stream: TcpStream, state: State) {
    let service = service_fn(|request: Request<Incoming>| {
        let response = respond(&request, &state);
        async move { Ok::<_, Infallible>(response) }
    });
    let serve =
        http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_TIME, serve).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "health connection ended with an error"),
        Err(_) => tracing::debug!("health connection took too long"),
    }
}

fn respond(request: &Request<Incoming>, state: &State) -> Response<Full<Bytes>> {
    let known = matches!(request.uri().path(), "/metrics" | "/healthz" | "/readyz");
    if known && request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "use GET\n".to_owned());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match (request.uri().path(), &state.metrics) {
        ("/metrics", Some(metrics)) => {
            let mut response = text(StatusCode::OK, metrics.render());
            response.headers_mut().insert(CONTENT_TYPE, PROMETHEUS);
            response
        }
        ("/healthz", _) => text(StatusCode::OK, "ok\n".to_owned()),
        ("/readyz", _) => ready(&state.readiness.borrow()),
        _ => text(
            StatusCode::NOT_FOUND,
            "not found; there are /metrics, /healthz and /readyz\n".to_owned(),
        ),
    }
}

fn ready(readiness: &Readiness) -> Response<Full<Bytes>> {
    match readiness {
        Readiness::Ready => text(StatusCode::OK, "ready\n".to_owned()),
        Readiness::NotReady(reasons) => {
            let lines: String =
                reasons.iter().map(|reason| format!("not ready: {reason}\n")).collect();
            text(StatusCode::SERVICE_UNAVAILABLE, lines)
        }
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::oneshot;

    use super::*;

    struct Running {
        addr: SocketAddr,
        ready: watch::Sender<Readiness>,
        stop: oneshot::Sender<()>,
        tasks: JoinSet<()>,
    }

    async fn start(metrics: Option<Metrics>) -> Running {
        let (ready, readiness) =
            watch::channel(Readiness::NotReady(vec!["nats is down".to_owned()]));
        let localhost = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = HealthServer::bind(localhost, metrics, readiness).await.expect("a free port");
        let addr = server.local_addr().expect("bound");
        let (stop, stopped) = oneshot::channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(server.run(async move { stopped.await.expect("the test stops it") }));
        Running { addr, ready, stop, tasks }
    }

    async fn ask(addr: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(addr).await.expect("listening");
        let request = format!("{request} HTTP/1.1\r\nHost: test\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("open");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    }

    #[tokio::test]
    async fn probes_metrics_and_errors_over_tcp() {
        let metrics = Metrics::install().expect("recorder");
        let server = start(Some(metrics)).await;
        let addr = server.addr;
        assert!(ask(addr, "GET /healthz").await.starts_with("HTTP/1.1 200"));
        let not_ready = ask(addr, "GET /readyz").await;
        assert!(
            not_ready.starts_with("HTTP/1.1 503") && not_ready.contains("nats is down"),
            "{not_ready}"
        );
        server.ready.send_replace(Readiness::Ready);
        assert!(ask(addr, "GET /readyz").await.starts_with("HTTP/1.1 200"));
        let metrics = ask(addr, "GET /metrics").await;
        assert!(metrics.contains("runlane_capacity"), "{metrics}");
        assert!(metrics.contains("version=0.0.4"), "{metrics}");
        assert!(ask(addr, "GET /").await.starts_with("HTTP/1.1 404"));
        let post = ask(addr, "POST /metrics").await;
        assert!(post.starts_with("HTTP/1.1 405") && post.contains("allow: GET, HEAD"), "{post}");
        assert!(ask(addr, "HEAD /metrics").await.ends_with("\r\n\r\n"));
    }

    #[tokio::test]
    async fn without_a_recorder_metrics_are_not_found() {
        let server = start(None).await;
        assert!(ask(server.addr, "GET /metrics").await.starts_with("HTTP/1.1 404"));
    }

    #[tokio::test]
    async fn connections_past_the_bound_wait_and_are_served_later() {
        let server = start(None).await;
        let mut idle = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            idle.push(TcpStream::connect(server.addr).await.expect("listening"));
        }
        let waiting = timeout(Duration::from_millis(200), ask(server.addr, "GET /healthz")).await;
        assert!(waiting.is_err(), "the bound holds");
        drop(idle);
        let served = timeout(Duration::from_secs(5), ask(server.addr, "GET /healthz")).await;
        assert!(served.expect("room again").starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn shutdown_closes_the_port_even_if_a_client_holds_a_connection() {
        let mut server = start(None).await;
        let _idle = TcpStream::connect(server.addr).await.expect("listening");
        assert!(ask(server.addr, "GET /healthz").await.starts_with("HTTP/1.1 200"));
        server.stop.send(()).expect("running");
        let ended = timeout(Duration::from_secs(5), server.tasks.join_next()).await;
        ended.expect("in time").expect("one task").expect("no panic");
        TcpStream::connect(server.addr).await.expect_err("closed");
    }
}
