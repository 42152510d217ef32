//! A TCP proxy between one worker and one server, for networks that fail in the ways networks do.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Pieces of up to 64 KiB that are on their way in one direction; then the sender is held back.
const IN_FLIGHT: usize = 64;

/// What the network does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    /// It works.
    Fine,
    /// Each piece takes this long.
    Slow(Duration),
    /// Connections stay open, and nothing arrives in these directions until it works again: then
    /// everything does, late.
    Stalled { up: bool, down: bool },
    /// Connections are closed, and new ones too.
    Cut,
}

/// A direction, seen from the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

/// A proxy; ends with all its connections when dropped.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    network: watch::Sender<Network>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Listens on a free port for connections to a server.
    pub(crate) async fn start(server: u16) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let (network, seen) = watch::channel(Network::Fine);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, server, seen));
        Ok(Self { port, network, _tasks: tasks })
    }

    pub(crate) fn set(&self, network: Network) {
        self.network.send_replace(network);
    }
}

async fn accept(listener: TcpListener, server: u16, network: watch::Receiver<Network>) {
    let mut connections = JoinSet::new();
    loop {
        // Cancel safe: a connection stays in the listener, an ended one in the set, until taken.
        tokio::select! {
            Ok((worker, _)) = listener.accept() => {
                if *network.borrow() != Network::Cut {
                    connections.spawn(relay(worker, server, network.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn relay(worker: TcpStream, server: u16, mut network: watch::Receiver<Network>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
    // Small messages are not to wait for each other. It is only about speed.
    worker.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    let (worker_read, worker_write) = worker.into_split();
    let (server_read, server_write) = server.into_split();
    let up = pass(worker_read, server_write, Way::Up, network.clone());
    let down = pass(server_read, worker_write, Way::Down, network.clone());
    // Cancel safe: whichever ends first ends the connection.
    tokio::select! {
        () = up => {}
        () = down => {}
        _ = network.wait_for(|network| *network == Network::Cut) => {}
    }
}

async fn pass(
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    way: Way,
    network: watch::Receiver<Network>,
) {
    let (pieces, on_their_way) = mpsc::channel(IN_FLIGHT);
    // Cancel safe: whichever ends first ends the connection.
    tokio::select! {
        () = take(from, pieces, network.clone()) => {}
        () = deliver(to, on_their_way, way, network) => {}
    }
}

async fn take(
    mut from: OwnedReadHalf,
    pieces: mpsc::Sender<(Instant, Bytes)>,
    network: watch::Receiver<Network>,
) {
    loop {
        let mut piece = BytesMut::with_capacity(64 * 1024);
        match from.read_buf(&mut piece).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let delay = match *network.borrow() {
            Network::Slow(delay) => delay,
            Network::Fine | Network::Stalled { .. } | Network::Cut => Duration::ZERO,
        };
        if pieces.send((Instant::now() + delay, piece.freeze())).await.is_err() {
            return;
        }
    }
}

async fn deliver(
    mut to: OwnedWriteHalf,
    mut pieces: mpsc::Receiver<(Instant, Bytes)>,
    way: Way,
    mut network: watch::Receiver<Network>,
) {
    let passes = |network: &Network| match network {
        Network::Stalled { up, down } => !(if way == Way::Up { *up } else { *down }),
        Network::Fine | Network::Slow(_) | Network::Cut => true,
    };
    while let Some((due, piece)) = pieces.recv().await {
        sleep_until(due).await;
        if network.wait_for(passes).await.is_err() || to.write_all(&piece).await.is_err() {
            return;
        }
    }
}
