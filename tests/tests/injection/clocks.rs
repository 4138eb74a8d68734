//! Wall clocks that jump.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use tests::harness::redis::Plain;
use tests::harness::{Bench, Clock, Host, wait};

/// How far the server's wall clock is ahead of ours, seconds.
async fn ahead_of_us(server: &Plain) -> Result<i64> {
    let (seconds, _): (i64, i64) = redis::cmd("TIME").query_async(&mut server.connect().await?).await?;
    Ok(seconds - SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() as i64)
}

/// Milliseconds that `CLIENT PAUSE` of 300 ms holds a write back there: elapsed time is not to jump.
async fn pause(server: &Plain) -> Result<u128> {
    let mut connection = server.connect().await?;
    redis::cmd("CLIENT").arg("PAUSE").arg(300).arg("WRITE").query_async::<()>(&mut connection).await?;
    let start = Instant::now();
    redis::cmd("SET").arg("k").arg("v").query_async::<()>(&mut connection).await?;
    Ok(start.elapsed().as_millis())
}

#[test]
fn a_jump_is_seen_by_its_own_processes_only() {
    Bench::run("injection-clock", async |bench| {
        let clock = Clock::new(bench.dir().join("clock"))?;
        let mut host = Host::loopback();
        host.clock = Some(clock.clone());
        let jumping = Plain::start(&bench, "jumping", &host).await?;
        let steady = Plain::start(&bench, "steady", &Host::loopback()).await?;
        let near = async |server: &Plain, ahead: i64| {
            let is = ahead_of_us(server).await?;
            ensure!((is - ahead).abs() <= 2, "its clock is {is} s ahead, not {ahead} s");
            anyhow::Ok(())
        };
        near(&jumping, 0).await?;
        for ahead in ["+3600", "-7200", "+0"] {
            clock.jump(ahead)?;
            let seconds: i64 = ahead.trim_start_matches('+').parse()?;
            wait::until("the jump is seen", Duration::from_secs(10), || near(&jumping, seconds)).await?;
            near(&steady, 0).await?;
            let held = pause(&jumping).await?;
            ensure!((250..2000).contains(&held), "a pause of 300 ms took {held} ms");
        }
        Ok(())
    });
}
