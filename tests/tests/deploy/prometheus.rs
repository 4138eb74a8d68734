//! Prometheus accepts the configuration and finds agents and controllers in ZooKeeper with it; the rules fire and keep silent as
//! they should.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aurora::serverset::{Endpoint, Member};
use tests::harness::process::Process;
use tests::harness::zookeeper::ZooKeeper;
use tests::harness::{Bench, binaries, wait};
use zookeeper_client::{Acls, CreateMode};

use crate::{run, text, tool};

/// Every metric that the programs declare, by its whole name.
fn declared() -> Vec<String> {
    let controllers = controller::metrics::DECLARED.iter().map(|metric| format!("aurora_redis_controller_{}", metric.name));
    let agents = agent::metrics::DECLARED.iter().map(|metric| format!("aurora_redis_agent_{}", metric.name));
    controllers.chain(agents).collect()
}

/// The words of a text that begin like our metrics.
fn named(text: &str) -> Vec<&str> {
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    text.split(word).filter(|word| word.starts_with("aurora_redis_")).collect()
}

#[test]
fn alerts_rest_on_metrics_that_exist() {
    let declared = declared();
    for file in ["deploy/prometheus/alerts.yml", "deploy/tests/alerts_test.yml"] {
        let rules = text(file);
        assert!(named(&rules).len() > 10, "{file} names no metric of ours");
        let unknown: Vec<_> = named(&rules).into_iter().filter(|name| !declared.iter().any(|known| known == name)).collect();
        assert!(unknown.is_empty(), "{file} names metrics that nobody exports: {unknown:?}");
    }
}

/// A reason that an alert selects by name has to be in the closed list, or the alert never fires.
#[test]
fn alerts_select_reasons_that_exist() {
    let known: Vec<&str> = controller::model::Reason::ALL.iter().map(|reason| reason.name()).collect();
    let rules = text("deploy/prometheus/alerts.yml");
    let quoted = rules.split("reason=").skip(1).filter_map(|rest| rest.split('"').nth(1));
    let selected: Vec<&str> = quoted.flat_map(|names| names.split('|')).collect();
    assert!(!selected.is_empty());
    for reason in selected {
        assert!(known.contains(&reason), "an alert selects the reason {reason}, which does not exist");
    }
}

#[test]
fn promtool_accepts_the_scrape_configuration_and_its_rules() {
    run(tool("promtool").args(["check", "config", "deploy/prometheus/scrape.yml"]));
}

#[test]
fn promtool_finds_nothing_to_complain_about_in_the_rules() {
    run(tool("promtool").args(["check", "rules", "--lint=all", "--lint-fatal", "deploy/prometheus/alerts.yml"]));
}

#[test]
fn alerts_fire_when_they_should_and_not_otherwise() {
    run(tool("promtool").args(["test", "rules", "deploy/tests/alerts_test.yml"]));
}

/// Announces a task as Aurora's executor does.
async fn announce(zookeeper: &ZooKeeper, job: &str, shard: u32, port: u16) -> Result<()> {
    let client = zookeeper.client().await?;
    let mode = CreateMode::Persistent.with_acls(Acls::anyone_all());
    let at = |port| Endpoint { host: "192.0.2.7".into(), port };
    let ports = BTreeMap::from([("health".to_owned(), at(port)), ("redis".to_owned(), at(port + 1))]);
    client
        .mkdir(job, &mode)
        .await
        .or_else(|error| if error == zookeeper_client::Error::NodeExists { Ok(()) } else { Err(error) })?;
    client
        .create(&format!("{job}/member_{shard:010}"), &Member::alive(at(port + 1), ports, Some(shard)).to_json(), &mode)
        .await?;
    Ok(())
}

/// Our scrape configuration with another ensemble in it, beside the rules that it names.
fn scrape_configuration(dir: &Path, ensemble: &str) -> Result<std::path::PathBuf> {
    let ours = text("deploy/prometheus/scrape.yml");
    let servers = "servers: ['zk1.example.com:2181', 'zk2.example.com:2181', 'zk3.example.com:2181']";
    ensure!(ours.matches(servers).count() == 2, "scrape.yml names its ensemble differently now");
    std::fs::write(dir.join("scrape.yml"), ours.replace(servers, &format!("servers: ['{ensemble}']")))?;
    std::fs::write(dir.join("alerts.yml"), text("deploy/prometheus/alerts.yml"))?;
    Ok(dir.join("scrape.yml"))
}

/// A real Prometheus with our scrape configuration and rules.
pub struct Prometheus {
    url: String,
    process: Process,
}

impl Prometheus {
    /// Starts it on an ensemble.
    pub fn start(bench: &Bench, ensemble: &str) -> Result<Prometheus> {
        let port = bench.port(&bench.here())?.number();
        let mut command = bench.command(&bench.here(), binaries::tool("prometheus")?);
        command.arg(format!("--config.file={}", scrape_configuration(bench.dir(), ensemble)?.display()));
        command.arg(format!("--storage.tsdb.path={}", bench.subdir("prometheus")?.display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        Ok(Prometheus { url: format!("http://127.0.0.1:{port}/api/v1"), process: bench.start("prometheus", command)? })
    }

    async fn get(&self, path: &str) -> Result<serde_json::Value> {
        self.process.check_alive()?;
        let answer: serde_json::Value = reqwest::get(format!("{}/{path}", self.url)).await?.error_for_status()?.json().await?;
        Ok(answer["data"].clone())
    }

    /// The labels and the value of every series that answers an expression.
    pub async fn query(&self, expression: &str) -> Result<Vec<(BTreeMap<String, String>, String)>> {
        let mut url: reqwest::Url = format!("{}/query", self.url).parse()?;
        url.query_pairs_mut().append_pair("query", expression);
        let path = format!("query?{}", url.query().unwrap_or_default());
        let series: Vec<Series> = serde_json::from_value(self.get(&path).await?["result"].clone())?;
        Ok(series.into_iter().map(|series| (series.metric, series.value.1)).collect())
    }
}

#[derive(serde::Deserialize)]
struct Series {
    metric: BTreeMap<String, String>,
    value: (f64, String),
}

#[derive(serde::Deserialize)]
struct Target {
    labels: BTreeMap<String, String>,
    #[serde(rename = "scrapeUrl")]
    url: String,
}

#[test]
fn prometheus_finds_agents_and_controllers_in_the_serversets() {
    Bench::run("prometheus", async |bench| {
        let zookeeper = ZooKeeper::single(&bench).await?;
        announce(&zookeeper, "/aurora/redis/prod/cache", 0, 31000).await?;
        announce(&zookeeper, "/aurora/redis/prod/cache", 2, 31010).await?;
        announce(&zookeeper, "/aurora/redis/prod/cache-controller", 1, 31020).await?;
        let prometheus = Prometheus::start(&bench, &zookeeper.connect_string())?;
        let look = async || -> Result<Vec<Target>> {
            let targets: Vec<Target> = serde_json::from_value(prometheus.get("targets").await?["activeTargets"].clone())?;
            ensure!(targets.len() == 3, "{} targets, not 3", targets.len());
            Ok(targets)
        };
        let targets = wait::until("Prometheus shows three targets", Duration::from_secs(60), look).await?;
        let label = |target: &Target, name: &str| target.labels.get(name).cloned().context(format!("no label {name}"));
        let mut seen = BTreeSet::new();
        for target in &targets {
            ensure!(label(target, "cluster")? == "redis/prod/cache", "labels {:?}", target.labels);
            seen.insert((label(target, "job")?, label(target, "shard")?, target.url.clone()));
        }
        let expected = [
            ("aurora-redis-agent", "0", "http://192.0.2.7:31000/metrics"),
            ("aurora-redis-agent", "2", "http://192.0.2.7:31010/metrics"),
            ("aurora-redis-controller", "1", "http://192.0.2.7:31020/metrics"),
        ];
        let expected = expected.map(|(job, shard, url)| (job.to_owned(), shard.to_owned(), url.to_owned()));
        ensure!(seen == BTreeSet::from(expected), "found {seen:?}");
        Ok(())
    });
}
