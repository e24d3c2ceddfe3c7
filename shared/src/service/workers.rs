//! Accepts connections, and serves each on one of a few threads.
//!
//! actix-server does this too, but it cannot close its listener before its last request ends, and it does not
//! limit the connections of one client (ADR 11).

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::connection::{IdleConnections, Scheme};
use super::shares::{Full, Share, Shares};
use crate::metrics;
use crate::stop::Stop;

/// Serves one connection to its end.
pub(super) type Serve = Rc<dyn Fn(TcpStream, SocketAddr, Scheme) -> LocalBoxFuture<'static, ()>>;
/// Makes a worker's [`Serve`], on its thread.
pub(super) type MakeServe = dyn Fn(Rc<IdleConnections>) -> LocalBoxFuture<'static, Serve> + Send + Sync;

enum Command {
    Serve(TcpStream, SocketAddr, Scheme, Share),
    EvictIdle,
}

/// How long the requests that are cut off may take to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// The threads.
pub(super) struct Workers {
    connections: Arc<Shares>,
    /// To each worker, which ends with its sender.
    commands: Vec<UnboundedSender<Command>>,
    threads: Vec<JoinHandle<()>>,
    next: usize,
    next_to_evict: usize,
}

impl Workers {
    pub(super) fn start(threads: usize, connections: Arc<Shares>, make: Arc<MakeServe>) -> io::Result<Self> {
        let worker = |_| {
            let (commands, received) = unbounded_channel();
            let make = make.clone();
            let (begin, begun) = std::sync::mpsc::channel();
            let thread = move || run(make, received, &begin);
            let thread = thread::Builder::new().name("worker".to_owned()).spawn(thread)?;
            begun.recv().unwrap_or_else(|_| Err(io::Error::other("a worker has ended")))?;
            Ok((commands, thread))
        };
        let (commands, threads) = (0..threads).map(worker).collect::<io::Result<_>>()?;
        Ok(Self { connections, commands, threads, next: 0, next_to_evict: 0 })
    }

    /// Accepts connections until `closing`. Then it accepts those that wait in the kernel's queues, and closes the
    /// listeners: a process that listens to the same ports gets all others. The second listener is for TLS.
    pub(super) async fn accept(
        mut self,
        plain: TcpListener,
        secure: Option<TcpListener>,
        closing: Stop,
    ) -> io::Result<Self> {
        let (plain, secure) = (listening(plain)?, secure.map(listening).transpose()?);
        while !closing.is_requested() {
            tokio::select! {
                accepted = plain.accept() => self.handle(accepted, Scheme::Http).await,
                accepted = accept_on(secure.as_ref()) => self.handle(accepted, Scheme::Https).await,
                () = closing.requested() => {}
            }
        }
        for (listener, scheme) in [(Some(plain), Scheme::Http), (secure, Scheme::Https)] {
            let Some(listener) = listener.map(tokio::net::TcpListener::into_std).transpose()? else {
                continue;
            };
            while let Ok((stream, peer)) = listener.accept() {
                self.serve(stream, peer, scheme);
            }
        }
        Ok(self)
    }

    async fn handle(&mut self, accepted: io::Result<(tokio::net::TcpStream, SocketAddr)>, scheme: Scheme) {
        match accepted.and_then(|(stream, peer)| Ok((stream.into_std()?, peer))) {
            Ok((stream, peer)) => self.serve(stream, peer, scheme),
            // Mostly: no descriptor is free. The connection stays in the kernel's queue.
            Err(error) => {
                metrics::refused_connection("error");
                log::warn!(error:%; "a connection cannot be accepted");
                self.evict_one();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    fn serve(&mut self, stream: TcpStream, peer: SocketAddr, scheme: Scheme) {
        let share = self.connections.enter(peer.ip());
        // A client that has its share already is refused, and causes no eviction.
        if !matches!(share, Err(Full::Client)) && self.connections.is_under_pressure() {
            self.evict_one();
        }
        match share {
            Ok(share) => {
                self.next = (self.next + 1) % self.commands.len();
                self.send(self.next, Command::Serve(stream, peer, scheme, share));
            }
            Err(Full::All) => metrics::refused_connection("all"),
            Err(Full::Client) => metrics::refused_connection("client"),
        }
    }

    /// Evicts in one worker after the other, because one of them may have no idle connection.
    fn evict_one(&mut self) {
        self.next_to_evict = (self.next_to_evict + 1) % self.commands.len();
        self.send(self.next_to_evict, Command::EvictIdle);
    }

    fn send(&self, worker: usize, command: Command) {
        if self.commands[worker].send(command).is_err() {
            log::error!("a worker thread has died");
        }
    }

    /// Closes the connections that are still open. Waits until their requests have ended and are logged, for
    /// [`STOP_TIMEOUT`] at most.
    pub(super) async fn stop(self) {
        drop(self.commands);
        let (ended, all_ended) = tokio::sync::oneshot::channel();
        thread::spawn(move || {
            self.threads.into_iter().for_each(|thread| drop(thread.join()));
            // The receiver waits no longer than its time-out.
            _ = ended.send(());
        });
        // A time-out is no error: the process ends.
        _ = tokio::time::timeout(STOP_TIMEOUT, all_ended).await;
    }
}

fn listening(listener: TcpListener) -> io::Result<tokio::net::TcpListener> {
    listener.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(listener)
}

async fn accept_on(
    listener: Option<&tokio::net::TcpListener>,
) -> io::Result<(tokio::net::TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

/// The runtime of one worker. Unlike the `LocalSet` of actix's arbiters, it schedules each task once.
fn run(make: Arc<MakeServe>, commands: UnboundedReceiver<Command>, begun: &Sender<io::Result<()>>) {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    // The receiver waits for it.
    match runtime {
        Ok(runtime) => {
            _ = begun.send(Ok(()));
            runtime.block_on(work(make, commands));
        }
        Err(error) => _ = begun.send(Err(error)),
    }
}

async fn work(make: Arc<MakeServe>, mut commands: UnboundedReceiver<Command>) {
    let idle = Rc::new(IdleConnections::default());
    let serve = make(idle.clone()).await;
    let idle_too_long = idle.clone();
    actix_web::rt::spawn(async move { idle_too_long.make_dormant().await });
    while let Some(command) = commands.recv().await {
        match command {
            Command::Serve(stream, peer, scheme, share) => {
                let serving = serve(stream, peer, scheme);
                actix_web::rt::spawn(async move {
                    serving.await;
                    drop(share);
                });
            }
            Command::EvictIdle => idle.evict(),
        }
    }
}
