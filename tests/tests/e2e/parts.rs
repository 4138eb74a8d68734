//! The parts that everything else stands on do what the harness says of them.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::harness::zookeeper::{Version, ZooKeeper};
use tests::harness::{Bench, browser, data, redis, wait};
use tokio::net::TcpStream;

const LIMIT: Duration = Duration::from_secs(30);

/// Sets and reads back a node.
async fn round_trip(zookeeper: &ZooKeeper) -> Result<()> {
    use zookeeper_client::{Acls, CreateMode};
    let client = zookeeper.client().await?;
    client.create("/a", b"1", &CreateMode::Persistent.with_acls(Acls::anyone_all())).await?;
    let (data, _) = client.get_data("/a").await?;
    ensure!(data == b"1", "read {data:?}");
    Ok(())
}

#[test]
fn zookeeper_keeps_its_nodes_over_kill_9() {
    Bench::run("zk-single", async |bench| {
        let mut zookeeper = ZooKeeper::single(&bench).await?;
        round_trip(&zookeeper).await?;
        zookeeper.kill(0);
        zookeeper.restart(0).await?;
        let (data, _) = zookeeper.client().await?.get_data("/a").await?;
        ensure!(data == b"1", "read {data:?}");
        Ok(())
    });
}

#[test]
fn zookeeper_3_4_serves() {
    Bench::run("zk-3-4", async |bench| round_trip(&ZooKeeper::start(&bench, &[bench.here()], Version::V3_4).await?).await);
}

#[test]
fn an_ensemble_in_namespaces_outlives_its_leader() {
    Bench::run_on_hosts("zk-ensemble", 3, async |bench| {
        let mut zookeeper = ZooKeeper::start(&bench, bench.hosts(), Version::Debian).await?;
        round_trip(&zookeeper).await?;
        let leader = zookeeper.leader().await?;
        zookeeper.kill(leader);
        let read = async || -> Result<Vec<u8>> { Ok(zookeeper.client().await?.get_data("/a").await?.0) };
        let data = wait::until("the other two answer", LIMIT, read).await?;
        ensure!(data == b"1", "read {data:?}");
        Ok(())
    });
}

#[test]
fn a_cut_drops_packets_in_the_direction_asked_until_healed() {
    Bench::run_on_hosts("cut", 2, async |bench| {
        let [h1, h2] = bench.hosts() else { unreachable!("two were asked for") };
        let listener = h1.inside(|| TcpListener::bind((h1.address.as_str(), 7000)))?;
        listener.set_nonblocking(true)?;
        let connect = async || -> Result<TcpStream> {
            let limit = Duration::from_secs(1);
            Ok(tokio::time::timeout(limit, TcpStream::connect((h1.address.as_str(), 7000)))
                .await
                .context("no answer in 1 s")??)
        };
        connect().await?;
        bench.network().cut(h1, h2)?;
        connect().await.context("a cut between two hosts reached a third place")?;
        bench.network().cut_one_way(&bench.here(), h1)?;
        ensure!(connect().await.is_err(), "connected through a cut");
        bench.network().heal()?;
        connect().await.context("healed")?;
        bench.network().isolate(h1)?;
        ensure!(connect().await.is_err(), "connected to an isolated host");
        Ok(())
    });
}

#[test]
fn every_server_binary_starts() {
    Bench::run("servers", async |bench| {
        for (server, version) in [(redis::Server::Debian, "7.0"), (redis::Server::Redis8, "8.2"), (redis::Server::Valkey9, "9.1")]
        {
            let port = bench.port(&bench.here())?;
            let mut command = bench.command(&bench.here(), server.path()?);
            command.args(["--port", &port.number().to_string(), "--bind", "127.0.0.1", "--save", ""]);
            let process = bench.start(&format!("{server:?}"), command)?;
            let mut client = wait::until("it answers", LIMIT, async || {
                process.check_alive()?;
                redis::connect(&format!("127.0.0.1:{}", port.number())).await
            })
            .await?;
            let info: String = ::redis::cmd("INFO").arg("server").query_async(&mut client).await?;
            ensure!(info.contains(&format!("_version:{version}")), "{server:?} says {info}");
        }
        Ok(())
    });
}

#[test]
fn real_data_is_loaded_and_compared_key_by_key_over_a_dump() {
    Bench::run("data", async |bench| {
        let (here, port) = (bench.here(), bench.port(&bench.here())?);
        let address = format!("127.0.0.1:{}", port.number());
        let start = || -> Result<_> {
            let mut command = bench.command(&here, redis::Server::Debian.path()?);
            command.args(["--port", &port.number().to_string(), "--bind", "127.0.0.1"]);
            bench.start("redis", command)
        };
        let server = start()?;
        let mut client = wait::until("it answers", LIMIT, || redis::connect(&address)).await?;
        let packages = data::packages()?;
        let keys = data::load(&packages[..5000], &mut client).await?;
        let before = data::Content::read(&mut client).await?;
        ensure!(keys > 10_000 && before.keys.len() as u64 == keys, "{keys} keys, {} read", before.keys.len());
        for kind in ["hash", "set", "zset", "list", "stream", "string"] {
            ensure!(before.types.contains_key(kind), "no {kind} among {:?}", before.types);
        }
        ::redis::cmd("SAVE").query_async::<()>(&mut client).await?;
        server.kill();
        let _server = start()?;
        let mut client = wait::until("it answers again", LIMIT, async || {
            let mut client = redis::connect(&address).await?;
            ::redis::cmd("GET").arg("x").query_async::<Option<String>>(&mut client).await?;
            Ok::<_, anyhow::Error>(client)
        })
        .await?;
        let differences = before.differences(&data::Content::read(&mut client).await?);
        ensure!(differences.is_empty(), "{differences:?}");
        ::redis::cmd("RPUSH").arg("list").arg("x").query_async::<()>(&mut client).await?;
        let differences = before.differences(&data::Content::read(&mut client).await?);
        ensure!(differences == ["list is new"], "{differences:?}");
        Ok(())
    });
}

#[test]
fn a_browser_shows_a_page_after_its_scripts() {
    Bench::run("browser", async |bench| {
        let page = bench.dir().join("page.html");
        std::fs::write(&page, "<p id=a>no</p><script>document.getElementById('a').textContent = 1 + 1 + ' yes'</script>")?;
        let dom = browser::dom(&bench, &format!("file://{}", page.display())).await?;
        ensure!(dom.contains("2 yes"), "{dom}");
        Ok(())
    });
}
