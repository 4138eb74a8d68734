//! `configure`: settings that the controller adapts at run time.

use std::sync::Arc;
use std::time::Duration;

use super::{Done, Halt, from_redis, refused};
use crate::api::Settings;
use crate::node::Node;
use crate::server::Server;

const LIMIT: Duration = Duration::from_secs(4);

/// Sets them; what is so already is not touched.
pub(super) async fn run(node: &Arc<Node>, server: &Arc<Server>, wanted: Settings) -> Result<Done, Halt> {
    if !is_save(&wanted.save) {
        let message = format!("save = {:?}: allowed are pairs of numbers, seconds and changes, or nothing", wanted.save);
        return Err(refused("bad-settings", message));
    }
    let now = node.look(|parts| parts.duty.settings.clone());
    if now.save != wanted.save {
        server.set("save", &wanted.save, LIMIT).await.map_err(from_redis)?;
        node.change(|parts| parts.duty.settings.save.clone_from(&wanted.save));
    }
    if now.min_replicas_to_write != wanted.min_replicas_to_write {
        let value = wanted.min_replicas_to_write.to_string();
        server.set("min-replicas-to-write", &value, LIMIT).await.map_err(from_redis)?;
        node.change(|parts| parts.duty.settings.min_replicas_to_write = wanted.min_replicas_to_write);
    }
    Ok(Done::Now)
}

fn is_save(text: &str) -> bool {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    words.len().is_multiple_of(2) && words.iter().all(|word| word.parse::<u32>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::is_save;

    #[test]
    fn save_points_are_pairs_of_numbers() {
        assert!(is_save("") && is_save("3600 1 300 100"));
        assert!(!is_save("3600") && !is_save("a b") && !is_save("1 -1"));
    }
}
