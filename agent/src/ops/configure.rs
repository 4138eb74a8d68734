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
    set_belt(node, server, wanted.min_replicas_to_write).await?;
    Ok(Done::Now)
}

/// Sets how many replicas a write needs. A new master begins with none, whatever its server was told under an earlier one.
pub(super) async fn set_belt(node: &Node, server: &Server, replicas: u32) -> Result<(), Halt> {
    if node.look(|parts| parts.duty.settings.min_replicas_to_write) != replicas {
        server.set("min-replicas-to-write", &replicas.to_string(), LIMIT).await.map_err(from_redis)?;
        node.change(|parts| parts.duty.settings.min_replicas_to_write = replicas);
    }
    Ok(())
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
