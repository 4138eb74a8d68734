//! How long ZooKeeper takes for a commit of the kind that lies on the path of a change of master: a transaction of a check and a write.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use zookeeper_client::{Acls, Client, CreateMode, Error};

/// Node that is written for this only.
const NODE: &str = "/benchmark";

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

    /// Measures `count` more, one after the other.
    pub async fn measure(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            let start = Instant::now();
            let mut writer = self.client.new_multi_writer();
            writer.add_check_version("/", 0)?;
            writer.add_set_data(NODE, b"some bytes, as many as a small record has or a little fewer", None)?;
            writer.commit().await?;
            self.times.push(start.elapsed());
        }
        Ok(())
    }
}
