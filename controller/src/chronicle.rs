//! The history of masters, kept beside the loop: entries are for people, so no change of master waits for them to be written or read.

use std::sync::Arc;

use agent::causes::chain;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

use crate::model::HistoryChange;
use crate::registry::{Leadership, Registry};
use crate::view::HistoryEntry;

/// Writes what is noted, in order, and knows the newest entries.
#[derive(Debug)]
pub struct Chronicle {
    changes: mpsc::UnboundedSender<HistoryChange>,
    entries: watch::Receiver<Vec<HistoryEntry>>,
    task: JoinHandle<()>,
}

impl Chronicle {
    /// Begins with what is there; `wake` is notified when new entries can be read.
    pub fn open(registry: Registry, lead: Arc<Leadership>, wake: Arc<Notify>) -> Chronicle {
        let (changes, mut noted) = mpsc::unbounded_channel();
        let (publish, entries) = watch::channel(Vec::new());
        let task = tokio::spawn(async move {
            // What was read or added: a node that somebody spoils meanwhile loses nothing.
            let mut known: Vec<HistoryEntry> = Vec::new();
            loop {
                match registry.history(&known).await {
                    Ok(entries) => {
                        known.clone_from(&entries);
                        publish.send_replace(entries);
                        wake.notify_one();
                    }
                    Err(error) => tracing::warn!(error = chain(&error), "the history cannot be read"),
                }
                let Some(change) = noted.recv().await else { return };
                write(&registry, &lead, &change, &mut known).await;
                while let Ok(change) = noted.try_recv() {
                    write(&registry, &lead, &change, &mut known).await;
                }
            }
        });
        Chronicle { changes, entries, task }
    }

    /// Has a change written; repeating one changes nothing.
    pub fn note(&self, change: HistoryChange) {
        // The task ends only with us.
        let _ = self.changes.send(change);
    }

    /// The newest entries, newest first.
    pub fn entries(&self) -> Vec<HistoryEntry> {
        self.entries.borrow().clone()
    }
}

impl Drop for Chronicle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn write(registry: &Registry, lead: &Leadership, change: &HistoryChange, known: &mut Vec<HistoryEntry>) {
    if let HistoryChange::Add(entry) = change
        && known.iter().all(|known| known.epoch != entry.epoch)
    {
        known.push(entry.as_ref().clone());
    }
    if let Err(error) = registry.change_history(lead, change, known).await {
        tracing::warn!(error = chain(&error), "a history entry could not be written");
    }
}
