//! The demo fails when what it shows is not true: one step is broken from outside.

use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use tests::harness::{Bench, binaries};

#[test]
fn a_broken_step_makes_the_demo_fail_and_leaves_nothing_behind() {
    Bench::run("demo-broken", async |bench| {
        let own = std::env::temp_dir().join(format!("demo-broken-{}", std::process::id()));
        std::fs::create_dir_all(&own)?;
        let spoil = "backup=kill -9 $(cat $DIR/namenode.pid)";
        let mut demo = Command::new(binaries::ours("demo")?);
        demo.args(["run", "--steps", "create,backup", "--before", spoil])
            .env("TMPDIR", &own)
            .stdin(Stdio::null())
            .current_dir(bench.dir());
        let output = tokio::task::spawn_blocking(move || demo.output()).await?.context("starting the demo")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.code() == Some(1), "{}: {said}", output.status);
        ensure!(said.contains("step 'backup'") || said.contains("FAILED"), "{said}");
        let left: Vec<_> = std::fs::read_dir(&own)?.filter_map(Result::ok).map(|e| e.path()).collect();
        ensure!(left.is_empty(), "left behind: {left:?}");
        std::fs::remove_dir_all(&own)?;
        Ok(())
    });
}
