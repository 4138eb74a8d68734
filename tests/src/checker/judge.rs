//! The judge: a pure function of the log and the final data.
//!
//! What a client's log proves: a write was executed after it was sent and before its acknowledgement was read, by the run of the server that answers
//! on that connection. So when a server's first acknowledgement has been *read* it has begun to write, and a write *sent* after that moment and
//! acknowledged by its predecessor was executed while two servers wrote. Not provable, hence not held against anybody: an acknowledgement that
//! arrives after the other's first but whose write was sent before, for it may have been executed in time and have waited in a socket.
//! Nor does silence prove anything: a write without an answer may have been executed or not.

use std::collections::HashMap;
use std::time::Duration;

use super::log::{Ack, Data, Log};
use super::verdict::{Overlap, Pause, Reign, Verdict};

#[cfg(test)]
mod tests;

/// What the judge is told beside log and data.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// When the fault began, in the log's time.
    pub fault: Option<Duration>,
    /// Run ids of the masters in the order of their epochs, where one led twice. Empty: every server led once, in the order of their first
    /// acknowledgements.
    pub reigns: Vec<String>,
}

/// Holds `log` against `data`, what the last master holds.
pub fn judge(log: &Log, data: &Data, about: &About) -> Verdict {
    let places = Places::of(data);
    let lost: Vec<Ack> = log.acks.iter().filter(|ack| places.of_value(ack.writer, ack.n).is_none()).copied().collect();
    let reigns = reigns(log, &about.reigns);
    let after = about.fault.unwrap_or_default();
    let first = |new: bool| {
        let old = |server| log.acks.iter().any(|ack| ack.server == server && ack.acked < after);
        log.acks.iter().filter(|ack| ack.sent >= after && !(new && old(ack.server))).map(|ack| ack.acked).min()
    };
    Verdict {
        fault: about.fault,
        acknowledged: log.acks.len(),
        confirmed: log.acks.iter().filter(|ack| ack.confirmed).count(),
        refused: log.failures.iter().filter(|f| f.refused.is_some()).cloned().collect(),
        unanswered: log.failures.iter().filter(|f| f.refused.is_none()).cloned().collect(),
        lost_confirmed: lost.iter().filter(|ack| ack.confirmed).copied().collect(),
        overlapping: overlapping(log, &reigns),
        hidden: hidden(log, &places),
        strange: strange(log, data, &places),
        longest_pause: longest_pause(log, Duration::ZERO),
        pause_after_fault: about.fault.and_then(|fault| longest_pause(log, fault)),
        first_after_fault: about.fault.and_then(|_| first(false)),
        first_by_successor: about.fault.and_then(|_| first(true)),
        reigns: reigns.iter().map(|server| reign(log, *server, &lost)).collect(),
        lost,
    }
}

/// Where each value stands in its writer's list.
struct Places(Vec<HashMap<u64, usize>>);

impl Places {
    fn of(data: &Data) -> Places {
        Places(data.0.iter().map(|list| list.iter().enumerate().map(|(place, n)| (*n, place)).collect()).collect())
    }

    fn of_value(&self, writer: usize, n: u64) -> Option<usize> {
        self.0.get(writer)?.get(&n).copied()
    }
}

/// Servers in the order in which they led, without those that acknowledged nothing.
fn reigns(log: &Log, told: &[String]) -> Vec<usize> {
    let mut order: Vec<usize> = Vec::new();
    if told.is_empty() {
        for ack in by_acked(log) {
            if !order.contains(&ack.server) {
                order.push(ack.server);
            }
        }
        return order;
    }
    for run_id in told {
        let server = log.servers.iter().position(|server| server.run_id == *run_id);
        order.extend(server.filter(|server| log.acks.iter().any(|ack| ack.server == *server)));
    }
    order.dedup();
    order
}

fn by_acked(log: &Log) -> Vec<&Ack> {
    let mut acks: Vec<&Ack> = log.acks.iter().collect();
    acks.sort_by_key(|ack| ack.acked);
    acks
}

/// Acknowledgements that fit no reign: sent when the next server had already acknowledged.
///
/// Each reign is taken to last as long as the log allows, until the next one's first acknowledgement was read. An acknowledgement fits if its write
/// was sent before that. What does not fit may fit a later reign of the same server, for it ends later than any earlier reign; so nothing is
/// accused that some placing of the reigns' ends would excuse.
fn overlapping(log: &Log, reigns: &[usize]) -> Vec<Overlap> {
    let mut left = by_acked(log);
    let mut begun: Vec<(usize, Duration)> = Vec::new();
    for (i, server) in reigns.iter().enumerate() {
        let next = reigns.get(i + 1);
        let end = next.and_then(|next| left.iter().find(|ack| ack.server == *next)).map(|ack| ack.acked);
        left.retain(|ack| ack.server != *server || end.is_some_and(|end| ack.sent > end));
        begun.extend(next.copied().zip(end));
    }
    let overlap = |ack: &&Ack| {
        let other = begun.iter().rev().find(|(server, first)| *server != ack.server && *first < ack.sent);
        let (other, first) = other.copied().unwrap_or((ack.server, Duration::ZERO));
        Overlap { ack: **ack, other, late: ack.sent.saturating_sub(first) }
    };
    left.iter().map(overlap).collect()
}

/// Acknowledged writes that are there now, but were not on a server that acknowledged a later write of the same writer: its list had not grown
/// beyond what it was before. Two histories, although the data ends with one. Pairs of (hidden, later).
fn hidden(log: &Log, places: &Places) -> Vec<(Ack, Ack)> {
    let mut found = Vec::new();
    let mut longest: HashMap<usize, Ack> = HashMap::new();
    let mut acks: Vec<&Ack> = log.acks.iter().filter(|ack| places.of_value(ack.writer, ack.n).is_some()).collect();
    acks.sort_by_key(|ack| ack.n);
    for ack in acks {
        match longest.get(&ack.writer) {
            Some(before) if before.length >= ack.length => found.push((*before, *ack)),
            _ => {
                longest.insert(ack.writer, *ack);
            }
        }
    }
    found
}

/// What no failover explains: values nobody wrote, values twice, acknowledged values in another order than they were written in.
fn strange(log: &Log, data: &Data, places: &Places) -> Vec<String> {
    let mut found = Vec::new();
    for (writer, list) in data.0.iter().enumerate() {
        let key = log.keys.get(writer).map_or("?", String::as_str);
        let sent = log.acks.iter().filter(|ack| ack.writer == writer).map(|ack| ack.n);
        let tried = log.failures.iter().filter(|f| f.writer == writer).map(|f| f.n);
        let known: std::collections::HashSet<u64> = sent.chain(tried).collect();
        let invented = list.iter().filter(|n| !known.contains(n)).count();
        let twice = list.len() - places.0[writer].len();
        let mut acked: Vec<&Ack> = log.acks.iter().filter(|ack| ack.writer == writer).collect();
        acked.sort_by_key(|ack| ack.n);
        let order: Vec<usize> = acked.iter().filter_map(|ack| places.of_value(writer, ack.n)).collect();
        let swapped = order.windows(2).filter(|pair| pair[0] > pair[1]).count();
        let what = [(invented, "values that nobody sent"), (twice, "values twice"), (swapped, "values out of order")];
        found.extend(what.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{key} holds {count} {what}")));
    }
    found
}

fn longest_pause(log: &Log, after: Duration) -> Option<Pause> {
    let pauses = log.pauses().filter(|(_, to)| *to > after);
    pauses.max_by_key(|(from, to)| *to - *from).map(|(from, to)| Pause { from, to })
}

fn reign(log: &Log, server: usize, lost: &[Ack]) -> Reign {
    let acks = || log.acks.iter().filter(|ack| ack.server == server);
    Reign {
        server: log.servers[server].clone(),
        acknowledged: acks().count(),
        first: acks().map(|ack| ack.acked).min().unwrap_or_default(),
        last: acks().map(|ack| ack.acked).max().unwrap_or_default(),
        lost: lost.iter().filter(|ack| ack.server == server).count(),
    }
}
