//! What the manifest of an imported snapshot says beside the usual. Pure; [`crate::store::Store::import`] makes them.
//!
//! Invariant: an imported snapshot belongs to no cluster and has no place in any history. It is never ranked among a cluster's own ones, is no base
//! for the collapse guard, and no backup. It is used when somebody names it, and by a cluster that is born where nothing else is stored.

use serde::{Deserialize, Serialize};

use super::{Made, Manifest, Origin};
use crate::api::Position;
use crate::rdb::Walked;

/// Stands in an imported snapshot's manifest in the place of a cluster's id; no cluster has it.
const NO_CLUSTER: &str = "imported";

/// Where an imported snapshot comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// Address of the file, or of the snapshot's directory, it was read from.
    pub from: String,
    /// Who had it imported.
    pub by: String,
    /// When, Unix time in milliseconds.
    pub at_ms: u64,
    /// Id of the cluster whose snapshot it was; absent when there was no manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// Place in the history of where it comes from, as the dump has it; absent when it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
}

impl Manifest {
    /// The manifest of a dump that was found elsewhere, was last changed there at `modified_ms`, and may have had a manifest there.
    ///
    /// The data's own time counts as that of the snapshot, as far as the dump or its manifest tells it, and not what lies in the future.
    pub fn of_import(imported: Imported, before: Option<&Manifest>, modified_ms: u64, dump: &Walked) -> Manifest {
        let Walked { checked, content } = dump;
        let told = before.map(|m| m.created_ms).or_else(|| checked.rdb.created_s.map(|s| s.saturating_mul(1000)));
        let version = checked.rdb.server_version.clone().or_else(|| before.map(|m| m.server_version.clone()));
        let origin = Origin {
            cluster_id: NO_CLUSTER.into(),
            keys: Some(content.counts()),
            server_version: version.unwrap_or_else(|| "unknown".into()),
            created_ms: told.unwrap_or(modified_ms).min(imported.at_ms),
            ..Origin::default()
        };
        let imported = Imported {
            cluster_id: before.map(|m| m.cluster_id.clone()),
            position: before.and_then(|m| m.position.clone()).or_else(|| checked.rdb.position.clone()),
            ..imported
        };
        Manifest { how: Made::Import, position: None, imported: Some(imported), ..Manifest::new(origin, checked) }
    }
}
