//! How clients learn who is master, by each system's own way: the node in ZooKeeper, the Sentinels, or told directly.
//!
//! One door is shared by all writers of a load, as the pool of one program would do.

use std::sync::Arc;
use std::time::Duration;

use agent::zk::{self, Keeper};
use anyhow::{Context, Result};
use futures_util::StreamExt;
use redis::aio::MultiplexedConnection;
use tokio::sync::{Notify, watch};

use crate::harness::{redis as server, wait};

/// Name of the master that the Sentinels watch.
pub const SENTINEL_MASTER: &str = "cache";
/// Pause between two questions to the Sentinels while nobody reaches the master.
const ASK_EVERY: Duration = Duration::from_millis(3);
/// Pause before a Sentinel that cannot be reached is tried again.
const AGAIN: Duration = Duration::from_millis(200);
/// Longest wait for a Sentinel.
const ANSWER: Duration = Duration::from_secs(1);

type Told = Option<Arc<str>>;

/// Names the master.
#[derive(Clone, Debug)]
pub struct Door {
    told: watch::Receiver<Told>,
    lost: Arc<Notify>,
}

impl Door {
    /// A door whose owner says who is master.
    pub fn told() -> (watch::Sender<Told>, Door) {
        let (tx, told) = watch::channel(None);
        (tx, Door { told, lost: Arc::default() })
    }

    /// The node `path`, whose content is the master's address, watched.
    pub fn zookeeper(keeper: &Keeper, path: &str) -> Door {
        let (tx, door) = Door::told();
        let mut node = zk::watch_node(keeper, path);
        tokio::spawn(async move {
            while !tx.is_closed() {
                let content = node.borrow_and_update().node.as_ref().map(|n| String::from_utf8_lossy(&n.data).as_ref().into());
                say(&tx, content);
                tokio::select! {
                    changed = node.changed() => if changed.is_err() { return },
                    () = tx.closed() => return,
                }
            }
        });
        door
    }

    /// The Sentinels: their `+switch-master` messages, and their answers to the question who is master, asked while nobody can write.
    pub async fn sentinels(addresses: &[String]) -> Result<Door> {
        let (tx, door) = Door::told();
        let tx = Arc::new(tx);
        let mut first = server::connect(addresses.first().context("no Sentinel")?).await?;
        say(&tx, Some(ask(&mut first).await?.as_str().into()));
        for address in addresses {
            tokio::spawn(listen(address.clone(), tx.clone()));
            tokio::spawn(answer(address.clone(), tx.clone(), door.lost.clone()));
        }
        Ok(door)
    }

    /// Who is master now; absent while there is none.
    pub fn server(&self) -> Told {
        self.told.borrow().clone()
    }

    /// Returns once the door names somebody else than `server`.
    pub async fn changed(&self, server: &str) {
        let other = |told: &Told| told.as_deref().unwrap_or_default() != server;
        if self.told.clone().wait_for(other).await.is_err() {
            std::future::pending().await
        }
    }

    /// A client says that it cannot write to `server`.
    pub fn lost(&self, server: &str) {
        if self.told.borrow().as_deref() == Some(server) {
            self.lost.notify_waiters();
        }
    }

    /// Waits until the door names `server`.
    pub async fn wait(&self, server: &str, limit: Duration) -> Result<()> {
        wait::until_now(&format!("the clients hear of {server}"), limit, || match self.server() {
            Some(told) if &*told == server => Ok(()),
            told => Err(format!("they hear of {told:?}")),
        })
        .await
    }
}

fn say(tx: &watch::Sender<Told>, told: Told) {
    tx.send_if_modified(|last| {
        let new = *last != told;
        *last = told;
        new
    });
}

/// Passes on `+switch-master NAME OLDIP OLDPORT NEWIP NEWPORT`.
async fn listen(address: String, tx: Arc<watch::Sender<Told>>) {
    let work = async {
        loop {
            if let Ok(Ok(mut messages)) = tokio::time::timeout(ANSWER, subscribe(&address)).await {
                while let Some(message) = messages.next().await {
                    let payload: String = message.get_payload().unwrap_or_default();
                    if let [SENTINEL_MASTER, _, _, ip, port] = payload.split(' ').collect::<Vec<_>>()[..] {
                        say(&tx, Some(format!("{ip}:{port}").into()));
                    }
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    };
    tokio::select! {
        () = tx.closed() => {}
        () = work => {}
    }
}

async fn subscribe(address: &str) -> Result<redis::aio::PubSubStream> {
    let mut connection = redis::Client::open(format!("redis://{address}/"))?.get_async_pubsub().await?;
    connection.subscribe("+switch-master").await?;
    Ok(connection.into_on_message())
}

/// Asks one Sentinel for as long as clients say that they cannot write. Only an answer that names another than the one they cannot reach counts, and
/// only while no other Sentinel has been quicker: one that is late to learn would send them back.
async fn answer(address: String, tx: Arc<watch::Sender<Told>>, lost: Arc<Notify>) {
    let work = async {
        let mut connection: Option<MultiplexedConnection> = None;
        loop {
            lost.notified().await;
            if connection.is_none() {
                connection = tokio::time::timeout(ANSWER, server::connect(&address)).await.ok().and_then(Result::ok);
            }
            let Some(open) = &mut connection else {
                tokio::time::sleep(AGAIN).await;
                continue;
            };
            let lost = tx.borrow().clone();
            match tokio::time::timeout(ANSWER, ask(open)).await {
                Ok(Ok(master)) => {
                    let master = Some(master.as_str().into());
                    let newer =
                        |last: &mut Told| *last == lost && *last != master && std::mem::replace(last, master.clone()) != master;
                    tx.send_if_modified(newer);
                }
                _ => connection = None,
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    };
    tokio::select! {
        () = tx.closed() => {}
        () = work => {}
    }
}

/// `SENTINEL get-master-addr-by-name`.
async fn ask(connection: &mut MultiplexedConnection) -> Result<String> {
    let mut question = redis::cmd("SENTINEL");
    question.arg("get-master-addr-by-name").arg(SENTINEL_MASTER);
    let (ip, port): (String, String) = question.query_async(connection).await.context("asking a Sentinel")?;
    Ok(format!("{ip}:{port}"))
}
