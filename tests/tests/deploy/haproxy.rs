//! The example configuration is what the program prints, and HAProxy accepts it.

use controller::haproxy::{Options, render};

use crate::{project, run, text, tool};

const EXAMPLE: &str = "deploy/haproxy/haproxy.cfg";

#[test]
fn the_example_is_what_is_printed() {
    let options = Options {
        cluster: "redis/prod/cache".into(),
        bind: "*".into(),
        writers_port: 6379,
        readers_port: 6380,
        slots: 16,
        max_lag_bytes: 1 << 20,
        socket: "/run/haproxy/admin.sock".into(),
    };
    if std::env::var_os("RENEW").is_some() {
        std::fs::write(project(EXAMPLE), render(&options)).expect("the example can be written");
    }
    assert_eq!(text(EXAMPLE), render(&options), "run: RENEW=1 cargo test -p tests --test deploy haproxy");
}

#[test]
fn haproxy_accepts_the_example() {
    run(tool("haproxy").args(["-c", "-f", EXAMPLE]));
}
