//! Agents: one long-lived stream each, so that a change is known at once; silence is judged by whoever reads the views.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use agent::api::{Address, State};
use agent::client::Client;
use futures_util::StreamExt;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::model::AgentView;

/// Wait before a broken stream is opened again.
const REOPEN: Duration = Duration::from_millis(200);

/// A stream that says nothing for this long is opened again: it may lead to a host that is gone without a word.
const STALE: Duration = Duration::from_secs(10);

/// An address that left the serverset is watched for this long: its agent's last words may be evidence.
const LINGER: Duration = Duration::from_secs(30);

/// The watched agents.
#[derive(Debug)]
pub struct Agents {
    client: Client,
    start: Instant,
    wake: Arc<Notify>,
    views: Arc<Mutex<BTreeMap<Address, AgentView>>>,
    watched: BTreeMap<Address, Watched>,
}

#[derive(Debug)]
struct Watched {
    task: JoinHandle<()>,
    left: Option<Instant>,
}

impl Agents {
    /// Nobody yet. `start` is the zero of all times; `wake` is notified at every change.
    pub fn new(client: Client, start: Instant, wake: Arc<Notify>) -> Agents {
        Agents { client, start, wake, views: Arc::default(), watched: BTreeMap::new() }
    }

    /// Watches exactly these addresses (and, for a while, those that left).
    pub fn watch(&mut self, addresses: &BTreeMap<Address, Option<u32>>) {
        for (address, shard) in addresses {
            match self.watched.get_mut(address) {
                Some(watched) => watched.left = None,
                None => self.open(address, *shard),
            }
        }
        for (address, watched) in &mut self.watched {
            if !addresses.contains_key(address) {
                watched.left.get_or_insert_with(Instant::now);
            }
        }
        let gone = |w: &Watched| w.left.is_some_and(|left| left.elapsed() > LINGER);
        let ended: Vec<Address> = self.watched.iter().filter(|(_, w)| gone(w)).map(|(a, _)| a.clone()).collect();
        for address in ended {
            if let Some(watched) = self.watched.remove(&address) {
                watched.task.abort();
            }
            lock(&self.views).remove(&address);
        }
    }

    fn open(&mut self, address: &Address, shard: Option<u32>) {
        let view = AgentView { address: address.clone(), shard, state: None, heard: None, problem: None };
        lock(&self.views).insert(address.clone(), view);
        let listener = Listener {
            client: self.client.clone(),
            address: address.clone(),
            start: self.start,
            wake: self.wake.clone(),
            views: self.views.clone(),
        };
        let task = tokio::spawn(async move { listener.listen().await });
        self.watched.insert(address.clone(), Watched { task, left: None });
    }

    /// The views of now. Agents that left the serverset are shown only as long as they speak.
    pub fn views(&self) -> Vec<AgentView> {
        let left = |a: &Address| self.watched.get(a).is_some_and(|w| w.left.is_some());
        lock(&self.views).values().filter(|v| !left(&v.address) || v.state.is_some()).cloned().collect()
    }

    /// Whether an address has left the serverset.
    pub fn has_left(&self, address: &Address) -> bool {
        self.watched.get(address).is_none_or(|w| w.left.is_some())
    }

    /// Forgets when anybody was last heard: after a stall of our own, old words say nothing about now.
    pub fn distrust(&self) {
        for view in lock(&self.views).values_mut() {
            view.heard = None;
        }
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        for watched in self.watched.values() {
            watched.task.abort();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

struct Listener {
    client: Client,
    address: Address,
    start: Instant,
    wake: Arc<Notify>,
    views: Arc<Mutex<BTreeMap<Address, AgentView>>>,
}

impl Listener {
    async fn listen(&self) {
        loop {
            let problem = match tokio::time::timeout(STALE, self.client.watch(&self.address)).await {
                Ok(Ok(stream)) => self.read(Box::pin(stream)).await,
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("agent {} did not answer within {STALE:?}", self.address),
            };
            self.note(|view| view.problem = Some(problem));
            self.wake.notify_one();
            tokio::time::sleep(REOPEN).await;
        }
    }

    /// Reads until the stream breaks; returns why.
    async fn read(&self, mut stream: std::pin::Pin<Box<impl StreamExt<Item = Result<State, agent::client::Error>>>>) -> String {
        loop {
            match tokio::time::timeout(STALE, stream.next()).await {
                Ok(Some(Ok(state))) => self.heard(state),
                Ok(Some(Err(error))) => return error.to_string(),
                Ok(None) => return format!("agent {} ended its stream", self.address),
                Err(_) => return format!("agent {} has said nothing for {STALE:?}", self.address),
            }
        }
    }

    fn heard(&self, state: State) {
        let now = self.start.elapsed();
        let mut changed = false;
        self.note(|view| {
            changed = view.state.as_ref() != Some(&state) || view.problem.is_some() || view.heard.is_none();
            view.heard = Some(now);
            view.problem = None;
            view.state = Some(state);
        });
        if changed {
            self.wake.notify_one();
        }
    }

    fn note(&self, change: impl FnOnce(&mut AgentView)) {
        if let Some(view) = lock(&self.views).get_mut(&self.address) {
            change(view);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    /// Accepts and answers nothing, as a host that is gone without a word would not either.
    #[tokio::test]
    async fn a_mute_agent_is_asked_again() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address { host: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() };
        let mut agents = Agents::new(Client::new(None), Instant::now(), Arc::new(Notify::new()));
        agents.watch(&BTreeMap::from([(address, None)]));
        let (_mute, _) = listener.accept().await.unwrap();
        let (mut begun, _) = tokio::time::timeout(STALE * 2, listener.accept()).await.expect("asked again").unwrap();
        begun.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        tokio::time::timeout(STALE * 2, listener.accept()).await.expect("asked again").unwrap();
        assert!(agents.views()[0].problem.as_ref().unwrap().contains("has said nothing"));
    }
}
