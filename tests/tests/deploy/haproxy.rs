//! The example configuration is what the program prints, and HAProxy accepts it.

use std::process::Command;

use tests::harness::binaries;

use crate::{project, run, text, tool};

const EXAMPLE: &str = "deploy/haproxy/haproxy.cfg";

#[test]
fn the_example_is_what_is_printed() {
    let program = binaries::ours("aurora-redis").unwrap_or_else(|error| panic!("{error:#}"));
    let arguments = ["haproxy", "config", "--cluster", "redis/prod/cache", "--zookeeper", "zk1.example.com:2181"];
    let printed = run(Command::new(program).args(arguments).current_dir("/"));
    if std::env::var_os("RENEW").is_some() {
        std::fs::write(project(EXAMPLE), &printed).expect("the example can be written");
    }
    assert_eq!(text(EXAMPLE), printed, "run: RENEW=1 cargo test -p tests --test deploy haproxy");
}

#[test]
fn haproxy_accepts_the_example() {
    run(tool("haproxy").args(["-c", "-f", EXAMPLE]));
}
