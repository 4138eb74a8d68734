//! `haproxy config` and `haproxy follow`.

use std::path::Path;
use std::time::Duration;

use agent::zk::watch_children;

use super::{Context, Failure, say};
use crate::haproxy::{Follower, Options, render};

/// How long `--once` waits for ZooKeeper's first word.
const FIRST_READ: Duration = Duration::from_secs(10);

pub(super) fn config(options: &Options) -> Result<(), Failure> {
    for (name, text) in [("--bind", &options.bind), ("--socket", &options.socket)] {
        if text.is_empty() || text.chars().any(|c| c.is_whitespace() || c.is_control() || "#\"'\\".contains(c)) {
            return Err(Failure::Usage(format!("{name} {text:?}: allowed is one word without quotes, '#' and '\\'")));
        }
    }
    say(&render(options));
    Ok(())
}

pub(super) async fn follow(context: &Context, socket: &Path, once: bool) -> Result<(), Failure> {
    // Without ZooKeeper it goes on waiting, and says so.
    let mut members = watch_children(context.session(), &context.place.serverset());
    if once {
        context.keeper().await?;
        let read =
            tokio::time::timeout(FIRST_READ, members.wait_for(|children| children.read)).await.is_ok_and(|read| read.is_ok());
        if !read {
            return Err(Failure::Failed(format!("{} was not read within {FIRST_READ:?}", context.place.serverset())));
        }
        let said = Follower::new(members, socket).round().await?;
        said.iter().for_each(|line| say(line));
        return Ok(());
    }
    Follower::new(members, socket)
        .run(|line| say(&format!("{} {line}", jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ"))))
        .await;
    Ok(())
}
