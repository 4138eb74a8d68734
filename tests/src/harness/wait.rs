//! Waiting for a condition: with a deadline, and with the last reason why it did not hold in the failure text.

use std::fmt::Display;
use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Pause between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(50);
/// The longest a single look may take; a condition that hangs counts as "not yet".
const LOOK: Duration = Duration::from_secs(10);

/// Looks until `look` answers `Ok`, at most `limit`; its `Err` says why not yet, and the last one is in the failure text.
/// `what` completes "waiting until …".
pub async fn until<T, E, F, Fut>(what: &str, limit: Duration, mut look: F) -> Result<T>
where
    E: Display,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let start = Instant::now();
    loop {
        let reason = match tokio::time::timeout(LOOK, look()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(e)) => format!("{e:#}"),
            Err(_) => format!("one look took more than {} s", LOOK.as_secs()),
        };
        if start.elapsed() >= limit {
            bail!("waited {:.1} s until {what}: {reason}", start.elapsed().as_secs_f64());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// As [`until`], for a condition that is seen without waiting.
pub async fn until_now<T, E: Display>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T, E>) -> Result<T> {
    until(what, limit, || std::future::ready(look())).await
}

/// Looks for `span` again and again and fails as soon as `look` does: for what must stay true.
pub async fn holds<E, F, Fut>(what: &str, span: Duration, mut look: F) -> Result<()>
where
    E: Display,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<(), E>>,
{
    let start = Instant::now();
    while start.elapsed() < span {
        if let Err(e) = look().await {
            bail!("{what} did not hold after {:.1} s: {e:#}", start.elapsed().as_secs_f64());
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_reason_is_in_the_failure_text() {
        let failure =
            until_now::<(), _>("pigs fly", Duration::from_millis(120), || Err("no wings")).await.unwrap_err().to_string();
        assert!(failure.contains("until pigs fly: no wings"), "{failure}");
    }

    #[tokio::test]
    async fn a_condition_that_comes_true_ends_the_wait() {
        let mut looks = 0;
        let seen = until_now("third look", Duration::from_secs(5), || {
            looks += 1;
            if looks == 3 { Ok(looks) } else { Err("not yet") }
        });
        assert_eq!(seen.await.unwrap(), 3);
    }
}
