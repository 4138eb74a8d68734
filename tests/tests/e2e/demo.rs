//! The demo fails when what it shows is not true: one step is broken from outside.

use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use tests::harness::{Bench, binaries};

#[test]
fn a_broken_step_makes_the_demo_fail_and_leaves_nothing_behind() {
    Bench::run("demo-broken", async |bench| {
        let own = std::env::temp_dir().join(format!("demo-broken-{}", std::process::id()));
        std::fs::create_dir_all(&own)?;
        let spoil = "doors=kill -9 $(cat $DIR/controller1.pid) $(cat $DIR/controller2.pid)";
        let mut demo = Command::new(binaries::ours("demo")?);
        demo.args(["run", "--steps", "create,doors", "--before", spoil])
            .env("TMPDIR", &own)
            .stdin(Stdio::null())
            .current_dir(bench.dir());
        let output = tokio::task::spawn_blocking(move || demo.output()).await?.context("starting the demo")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.code() == Some(1), "{}: {said}", output.status);
        ensure!(said.contains("doors   FAILED"), "{said}");
        ensure!(said.contains("create  1 master, 4 proven replicas"), "{said}");
        let left: Vec<_> = std::fs::read_dir(&own)?.filter_map(Result::ok).map(|e| e.path()).collect();
        ensure!(left.is_empty(), "left behind: {left:?}");
        std::fs::remove_dir_all(&own)?;
        Ok(())
    });
}
