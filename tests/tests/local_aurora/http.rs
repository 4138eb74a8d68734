//! HTTP and command line: what is refused, and how.

use std::sync::Arc;

use anyhow::{Result, ensure};
use aurora::types::Response;
use aurora::wire::{CONTENT_TYPE, Reply, decode_reply};
use reqwest::header::{ACCEPT, CONTENT_TYPE as CONTENT_TYPE_HEADER};
use tests::harness::{Bench, binaries};

use super::world::{World, hosts};

#[test]
fn requests_that_are_no_calls_are_answered_as_by_the_real_scheduler() {
    Bench::run("refusals", refusals);
}

async fn refusals(bench: Arc<Bench>) -> Result<()> {
    let world = World::start(&bench, &hosts(1)).await?;
    let client = reqwest::Client::new();
    let url = format!("{}/api", world.url);
    let post = |content_type: &str, body: &[u8]| {
        let request = client.post(&url).header(ACCEPT, CONTENT_TYPE).body(body.to_vec());
        if content_type.is_empty() { request } else { request.header(CONTENT_TYPE_HEADER, content_type) }
    };
    let status = async |request: reqwest::RequestBuilder| anyhow::Ok(request.send().await?.status().as_u16());
    ensure!(status(client.get(&url)).await? == 500);
    ensure!(status(client.put(&url)).await? == 405);
    ensure!(status(client.post(format!("{url}/"))).await? == 404);
    ensure!(status(post("text/plain", b"x")).await? == 415);
    ensure!(status(post("", b"x")).await? == 415);
    ensure!(status(post(CONTENT_TYPE, b"")).await? == 500);
    ensure!(status(post(CONTENT_TYPE, &[0x80, 1, 0, 1, 0x7f, 0xff, 0xff, 0xff])).await? == 500);
    ensure!(status(post(CONTENT_TYPE, &[0xff; 4096])).await? == 500);

    let unknown = b"\x80\x01\x00\x01\x00\x00\x00\x04nope\x00\x00\x00\x07\x00";
    let answer = post(&CONTENT_TYPE.to_uppercase(), unknown).send().await?;
    ensure!(answer.status() == 200 && answer.headers()[CONTENT_TYPE_HEADER] == CONTENT_TYPE);
    let reply = decode_reply("nope", 7, &answer.bytes().await?)?;
    ensure!(matches!(&reply, Reply::Exception(exception) if exception.kind == 1), "{reply:?}");

    let no_argument = b"\x80\x01\x00\x01\x00\x00\x00\x09killTasks\x00\x00\x00\x08\x00";
    let reply = decode_reply("killTasks", 8, &post(CONTENT_TYPE, no_argument).send().await?.bytes().await?)?;
    ensure!(matches!(&reply, Reply::Response(Response { response_code, .. }) if response_code.0 == 2), "{reply:?}");
    ensure!(reqwest::get(format!("{}/health", world.url)).await?.text().await? == "OK\n");
    ensure!(reqwest::get(format!("{}/leaderhealth", world.url)).await?.status() == 200);
    Ok(())
}

#[test]
fn a_scheduler_without_zookeeper_does_not_lead() {
    Bench::run("leaderless", leaderless);
}

async fn leaderless(bench: Arc<Bench>) -> Result<()> {
    let mut world = World::start(&bench, &hosts(1)).await?;
    world.zookeeper.kill(0);
    let client = reqwest::Client::new();
    let call = b"\x80\x01\x00\x01\x00\x00\x00\x07getJobs\x00\x00\x00\x01\x00";
    let request = || {
        let request = client.post(format!("{}/api", world.url)).header(ACCEPT, CONTENT_TYPE);
        request.header(CONTENT_TYPE_HEADER, CONTENT_TYPE).body(call.to_vec())
    };
    tests::harness::wait::until("its session has expired", super::SOON, async || {
        let status = request().send().await?.status();
        ensure!(status == 503, "{status}");
        Ok(())
    })
    .await?;
    let bytes = request().header("Bypass-Leader-Redirect", "1").send().await?.bytes().await?;
    let reply = decode_reply("getJobs", 1, &bytes)?;
    let Reply::Response(response) = reply else { anyhow::bail!("{reply:?}") };
    ensure!(response.response_code.0 == 6 && response.message() == "Storage is not READY", "{response:?}");
    world.zookeeper.restart(0).await?;
    world.client.ping().await?;
    Ok(())
}

#[test]
fn mistakes_on_the_command_line_and_in_the_hosts_file_end_it_at_once() {
    Bench::run("mistakes", mistakes);
}

async fn mistakes(bench: Arc<Bench>) -> Result<()> {
    let run = |file: &str, more: &[&str]| {
        let path = bench.dir().join("hosts.toml");
        std::fs::write(&path, file)?;
        let mut command = bench.command(&bench.here(), binaries::ours("local-aurora")?);
        command.args(["--zookeeper", "127.0.0.1:1", "--hosts"]).arg(&path).args(more);
        let output = command.output()?;
        anyhow::Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
    };
    let (code, text) = run("[[host]]\nname = \"a\"\naddress = \"127.0.0.1\"\nport = 1\n", &[])?;
    ensure!(
        code == Some(2) && text.contains("hosts.toml") && text.contains("port") && text.contains("line 4"),
        "{code:?} {text}"
    );
    let twice = "[[host]]\nname = \"a\"\naddress = \"127.0.0.1\"\n".repeat(2);
    let (code, text) = run(&twice, &[])?;
    ensure!(code == Some(2) && text.contains("used twice"), "{code:?} {text}");
    let (code, text) = run(&hosts(1), &["--flapping-delay", "5"])?;
    ensure!(code == Some(2) && text.contains("--flapping-delay"), "{code:?} {text}");
    let (code, text) = run(&hosts(1), &["--listen", "0.0.0.0:0"])?;
    ensure!(code == Some(2) && text.contains("--listen"), "{code:?} {text}");
    Ok(())
}
