//! The server: its listeners, its runtime, its end.

use crate::config::Limits;
use crate::connection::{Handler, accept_loop};
use crate::handler::{Answer, Shared, build, handle};
use crate::request::{Request, Response};
use crossbeam::channel::{Receiver, bounded};
use hyper::body::Incoming;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

/// Where a server listens and what it takes.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Address of the client API.
    pub api: SocketAddr,
    /// Address of the metrics page, if there is one.
    pub metrics: Option<SocketAddr>,
    /// Threads of the runtime.
    pub threads: usize,
    /// Bounds.
    pub limits: Limits,
}

impl ServerConfig {
    /// The API at this address with the default bounds, two threads and no metrics page.
    pub fn new(api: SocketAddr) -> Self {
        Self { api, metrics: None, threads: 2, limits: Limits::default() }
    }
}

/// Renders the metrics page in the OpenMetrics text format; called on a runtime thread for each visit.
pub type MetricsPage = Arc<dyn Fn() -> String + Send + Sync>;

/// What the server counts, from its start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections accepted.
    pub connections: AtomicU64,
    /// Connections refused for their number.
    pub connections_refused: AtomicU64,
    /// Requests read up to their headers.
    pub requests: AtomicU64,
    /// Requests answered without the queue's reader: malformed, too large, too many, too slow.
    pub refused: AtomicU64,
}

/// A running server. Dropping it closes its connections at once; [`Self::shutdown`] lets them finish.
pub struct Server {
    runtime: Option<Runtime>,
    stop: watch::Sender<bool>,
    listeners: Vec<JoinHandle<()>>,
    api: SocketAddr,
    metrics: Option<SocketAddr>,
    limits: Limits,
    counters: Arc<Counters>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("api", &self.api).field("metrics", &self.metrics).finish_non_exhaustive()
    }
}

struct Api(Shared);

impl Handler for Api {
    async fn handle(&self, request: hyper::Request<Incoming>) -> Answer {
        handle(request, &self.0).await
    }
}

struct Metrics(MetricsPage);

impl Handler for Metrics {
    async fn handle(&self, request: hyper::Request<Incoming>) -> Answer {
        let response = match (request.method(), request.uri().path()) {
            (&hyper::Method::GET, "/metrics") => Response {
                status: 200,
                content_type: "application/openmetrics-text; version=1.0.0; charset=utf-8",
                body: (self.0)().into_bytes(),
            },
            (_, "/metrics") => Response::text(405, "this endpoint takes GET only"),
            _ => Response::text(404, "no such endpoint; the metrics are at /metrics"),
        };
        build(response, None)
    }
}

fn bind(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Starts a server; requests come out of the returned receiver, in order of arrival.
///
/// Errors: an address that cannot be bound, a runtime that cannot start.
pub fn serve(config: ServerConfig, page: MetricsPage) -> io::Result<(Server, Receiver<Request>)> {
    let ServerConfig { api, metrics, threads, limits } = config;
    let (api_listener, api) = bind(api)?;
    let metrics_listener = metrics.map(bind).transpose()?;
    let runtime = Builder::new_multi_thread().worker_threads(threads).thread_name("net").enable_all().build()?;
    let (queue, requests) = bounded(limits.queue_max);
    let (stop, stopped) = watch::channel(false);
    let counters = Arc::new(Counters::default());
    let shared = Shared {
        limits: limits.clone(),
        queue,
        body_budget: Arc::new(Semaphore::new(limits.body_bytes_total_max)),
        answer_budget: Arc::new(Semaphore::new(limits.answer_bytes_total_max)),
        counters: Arc::clone(&counters),
    };
    let _in_runtime = runtime.enter();
    let listener = tokio::net::TcpListener::from_std(api_listener)?;
    let accept = accept_loop(listener, Arc::new(Api(shared)), limits.clone(), Arc::clone(&counters), stopped.clone());
    let mut listeners = vec![runtime.spawn(accept)];
    let mut metrics = None;
    if let Some((listener, address)) = metrics_listener {
        metrics = Some(address);
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let counters = Arc::new(Counters::default());
        listeners.push(runtime.spawn(accept_loop(
            listener,
            Arc::new(Metrics(page)),
            Limits { connections_max: limits.metrics_connections_max, ..limits.clone() },
            counters,
            stopped,
        )));
    }
    drop(_in_runtime);
    Ok((Server { runtime: Some(runtime), stop, listeners, api, metrics, limits, counters }, requests))
}

impl Server {
    /// Where the client API listens; differs from what was asked for if that left the port open.
    pub const fn api_address(&self) -> SocketAddr {
        self.api
    }
    /// Where the metrics page is.
    pub const fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics
    }
    /// What the server has counted.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Stops accepting, lets requests that are under way finish (the queue's reader must still answer them), then closes
    /// everything; at most the shutdown timeout.
    pub fn shutdown(mut self) {
        self.stop.send_replace(true);
        let Some(runtime) = self.runtime.take() else { return };
        let listeners = std::mem::take(&mut self.listeners);
        let finish = async {
            for listener in listeners {
                drop(listener.await);
            }
        };
        let in_time =
            runtime.block_on(async { tokio::time::timeout(self.limits.shutdown_timeout, finish).await.is_ok() });
        if !in_time {
            tracing::warn!("connections still open at shutdown were closed");
        }
        runtime.shutdown_background();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
