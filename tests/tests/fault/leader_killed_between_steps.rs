//! kill -9 of the leading controller between any two steps of a failover: at each change of the record that it makes, and at arbitrary moments.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::checker::Load;
use tests::harness::Bench;
use tests::harness::cluster::{Cluster, LIMIT, Options};

/// When the leader dies, after the master's server did.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// As soon as the record has changed so often.
    Changes(u32),
    /// After that time.
    Elapsed(Duration),
}

async fn reached(cluster: &Cluster, moment: Moment, version: i32) -> Result<()> {
    match moment {
        Moment::Elapsed(time) => tokio::time::sleep(time).await,
        Moment::Changes(changes) => {
            let client = cluster.zookeeper.client().await?;
            let node = cluster.paths().record();
            loop {
                let (_, stat, changed) = client.get_and_watch_data(&node).await?;
                if stat.version >= version + changes as i32 {
                    break;
                }
                tokio::time::timeout(LIMIT, changed.changed()).await.context("the record does not change")?;
            }
        }
    }
    Ok(())
}

#[test]
fn its_successor_goes_on_from_the_record() {
    Bench::run("leader-killed-between", async |bench| {
        let options = Options {
            instances: 4,
            controllers: 2,
            controller_config: "zookeeper_session = '2s'\n".into(),
            ..Options::default()
        };
        let mut cluster = Cluster::start(&bench, options).await?;
        let writers = cluster.writers("w", &Load { rate: Some(60), ..Load::witnesses() }).await?;
        let began = Instant::now();
        let times = [1, 3, 8].map(|ms| Moment::Elapsed(Duration::from_millis(ms)));
        for moment in [1, 2, 3].map(Moment::Changes).into_iter().chain(times) {
            let before = cluster.wait_stable().await?;
            writers.progress(100, LIMIT).await?;
            let (leader, master) = (cluster.leader().await?, cluster.master().await?);
            let (_, version) = cluster.record().await?;
            let (died, _) = tokio::join!(reached(&cluster, moment, version), cluster.kill_server(master));
            died?;
            cluster.kill_controller(leader);
            let after = cluster.wait_new_master(before.epoch).await.with_context(|| format!("killed at {moment:?}"))?;
            ensure!(after.master.as_ref().is_some_and(|m| m.instance != master), "{moment:?}: the dead one leads");
            writers.progress(100, LIMIT).await?;
            cluster.start_controller(leader)?;
            cluster.wait_standby(leader).await?;
        }
        cluster.wait_stable().await?;
        let log = writers.stop().await?;
        let verdict = log.verdict(&mut cluster.connect_master().await?, began).await?;
        verdict.one_writer()?.confirmed_kept()?;
        Ok(())
    });
}
