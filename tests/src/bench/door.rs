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

use crate::checker::Told;
use crate::harness::{redis as server, wait};

/// Name of the master that the Sentinels watch.
pub const SENTINEL_MASTER: &str = "cache";
/// Pause between two questions to the Sentinels while nobody reaches the master.
const ASK_EVERY: Duration = Duration::from_millis(3);
/// Pause before a Sentinel that cannot be reached is tried again.
const AGAIN: Duration = Duration::from_millis(200);
/// Longest wait for a Sentinel.
const ANSWER: Duration = Duration::from_secs(1);

type Tell = Arc<watch::Sender<Option<String>>>;

/// The node `path`, whose content is the master's address, watched.
pub fn zookeeper(keeper: &Keeper, path: &str) -> Told {
    let (tell, told) = Told::new();
    let mut node = zk::watch_node(keeper, path);
    tokio::spawn(async move {
        while !tell.is_closed() {
            let content = node.borrow_and_update().node.as_ref().map(|n| String::from_utf8_lossy(&n.data).into_owned());
            say(&tell, content);
            tokio::select! {
                changed = node.changed() => if changed.is_err() { return },
                () = tell.closed() => return,
            }
        }
    });
    told
}

/// The Sentinels: their `+switch-master` messages, and their answers to the question who is master, asked while nobody can write.
pub async fn sentinels(addresses: &[String]) -> Result<Told> {
    let (tell, told) = Told::new();
    let tell = Arc::new(tell);
    let mut first = server::connect(addresses.first().context("no Sentinel")?).await?;
    say(&tell, Some(ask(&mut first).await?));
    for address in addresses {
        tokio::spawn(listen(address.clone(), tell.clone()));
        tokio::spawn(answer(address.clone(), tell.clone(), told.lost()));
    }
    Ok(told)
}

/// Waits until `address` is named.
pub async fn wait(told: &Told, address: &str, limit: Duration) -> Result<()> {
    wait::until_now(&format!("the clients hear of {address}"), limit, || match told.master() {
        Some(master) if master == address => Ok(()),
        other => Err(format!("they hear of {other:?}")),
    })
    .await
}

fn say(tell: &watch::Sender<Option<String>>, master: Option<String>) {
    tell.send_if_modified(|last| {
        let new = *last != master;
        *last = master;
        new
    });
}

/// Passes on `+switch-master NAME OLDIP OLDPORT NEWIP NEWPORT`.
async fn listen(address: String, tell: Tell) {
    let work = async {
        loop {
            if let Ok(Ok(mut messages)) = tokio::time::timeout(ANSWER, subscribe(&address)).await {
                while let Some(message) = messages.next().await {
                    let payload: String = message.get_payload().unwrap_or_default();
                    if let [SENTINEL_MASTER, _, _, ip, port] = payload.split(' ').collect::<Vec<_>>()[..] {
                        say(&tell, Some(format!("{ip}:{port}")));
                    }
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    };
    tokio::select! {
        () = tell.closed() => {}
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
async fn answer(address: String, tell: Tell, lost: Arc<Notify>) {
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
            let lost = tell.borrow().clone();
            match tokio::time::timeout(ANSWER, ask(open)).await {
                Ok(Ok(master)) => {
                    let master = Some(master);
                    let newer = |last: &mut Option<String>| {
                        *last == lost && *last != master && std::mem::replace(last, master.clone()) != master
                    };
                    tell.send_if_modified(newer);
                }
                _ => connection = None,
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    };
    tokio::select! {
        () = tell.closed() => {}
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
