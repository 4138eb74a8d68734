//! How long ZooKeeper takes for a commit of the kind that lies on the path of a change of master: a transaction of a check and a write.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use zookeeper_client::{Acls, Client, CreateMode, Error};

/// Node that is written for this only.
const NODE: &str = "/benchmark";
/// Rounds of the calls that a change of master needs, before anything is measured. A Java server that was just started interprets its code, and
/// compiles it while the first failovers pass by; one that has run for some minutes has done that.
const WARM_UP: usize = 3000;

/// Commits measured so far.
#[derive(Debug)]
pub struct Commits {
    client: Client,
    /// Each one's time.
    pub times: Vec<Duration>,
}

impl Commits {
    /// Makes the node.
    pub async fn new(client: Client) -> Result<Commits> {
        match client.create(NODE, b"", &CreateMode::Persistent.with_acls(Acls::anyone_all())).await {
            Ok(_) | Err(Error::NodeExists) => Ok(Commits { client, times: Vec::new() }),
            Err(e) => Err(e).context(NODE),
        }
    }

    /// Has ZooKeeper run every kind of call that a change of master needs until it is as quick as it gets.
    pub async fn warm_up(&mut self) -> Result<()> {
        let node = format!("{NODE}/warm-up");
        let (own, watcher) = (CreateMode::Ephemeral.with_acls(Acls::anyone_all()), self.client.clone());
        for _ in 0..WARM_UP {
            let (_, absent) = watcher.check_and_watch_stat(&node).await?;
            self.client.create(&node, b"127.0.0.1:6379", &own).await?;
            absent.changed().await;
            let (_, _, present) = watcher.get_and_watch_data(&node).await?;
            watcher.list_children(NODE).await?;
            self.client.delete(&node, None).await?;
            present.changed().await;
            self.commit().await?;
        }
        Ok(())
    }

    /// Measures `count` more, one after the other.
    pub async fn measure(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            let start = Instant::now();
            self.commit().await?;
            self.times.push(start.elapsed());
        }
        Ok(())
    }

    async fn commit(&self) -> Result<()> {
        let mut writer = self.client.new_multi_writer();
        writer.add_check_version("/", 0)?;
        writer.add_set_data(NODE, b"some bytes, as many as a small record has or a little fewer", None)?;
        writer.commit().await?;
        Ok(())
    }
}
