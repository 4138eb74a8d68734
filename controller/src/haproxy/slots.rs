//! Which slot should hold whom. Pure: from the slots as they are and the members announced to the commands that bring them together.
//!
//! Whoever has a slot keeps it, so nothing happens when nothing changed, whatever order things come in. A member that is no longer
//! announced leaves its slot only when its check fails too: an announcer that lost its session with ZooKeeper does not cost
//! a healthy master its clients.

use std::collections::HashSet;
use std::net::SocketAddr;

use super::runtime::Slot;

/// An announced member.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Target {
    /// For people, e.g. `instance 3`.
    pub name: String,
    /// Where Redis listens.
    pub redis: SocketAddr,
    /// Where its agent answers the checks.
    pub agent: SocketAddr,
}

/// One change of one slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// For people.
    pub what: String,
    /// Commands, to be run on one line.
    pub commands: Vec<String>,
}

/// What to do in one backend, and who found no slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Filling {
    pub changes: Vec<Change>,
    pub left_out: Vec<String>,
}

/// Compares the slots of `backend` with the members. `slots` are those of all backends: a member is healthy when it passes anywhere.
pub(super) fn fill(backend: &str, slots: &[Slot], targets: &[Target]) -> Filling {
    let healthy: HashSet<SocketAddr> = slots.iter().filter(|slot| slot.up && !slot.maintenance).filter_map(redis).collect();
    let ours = || slots.iter().filter(|slot| slot.backend == backend);
    let mut waiting: Vec<&Target> = targets.iter().collect();
    let (mut free, mut spare, mut gone) = (Vec::new(), Vec::new(), Vec::new());
    for slot in ours() {
        match waiting.iter().position(|target| holds(slot, target)) {
            Some(at) if !slot.maintenance => drop(waiting.remove(at)),
            _ if slot.maintenance => free.push(slot),
            _ if redis(slot).is_some_and(|address| healthy.contains(&address) && !announced(targets, address)) => {
                spare.push(slot)
            }
            _ => gone.push(slot),
        }
    }
    let mut filling = Filling::default();
    // Room is made from those that are gone, and if that is not enough from healthy ones that nobody announces any more.
    let missing = waiting.len().saturating_sub(free.len() + gone.len());
    gone.extend(spare.into_iter().take(missing));
    let room: Vec<&Slot> = gone.iter().copied().chain(free).collect();
    for (slot, target) in room.iter().zip(&waiting) {
        filling.changes.push(enter(slot, target));
    }
    for slot in gone.iter().skip(waiting.len().min(gone.len())) {
        filling.changes.push(leave(slot));
    }
    filling.left_out = waiting.iter().skip(room.len()).map(|target| target.name.clone()).collect();
    filling
}

fn redis(slot: &Slot) -> Option<SocketAddr> {
    Some(SocketAddr::new(slot.address?, slot.port))
}

fn announced(targets: &[Target], redis: SocketAddr) -> bool {
    targets.iter().any(|target| target.redis == redis)
}

fn holds(slot: &Slot, target: &Target) -> bool {
    let checked = slot.check_address.or(slot.address).map(|address| SocketAddr::new(address, slot.check_port));
    redis(slot) == Some(target.redis) && checked == Some(target.agent)
}

fn enter(slot: &Slot, target: &Target) -> Change {
    let server = format!("set server {}/{}", slot.backend, slot.name);
    let Target { name, redis, agent } = target;
    Change {
        what: format!("{}/{}: {name} at {redis}, checked at {agent}", slot.backend, slot.name),
        commands: vec![
            format!("{server} state maint"),
            format!("{server} addr {} port {}", redis.ip(), redis.port()),
            format!("{server} check-addr {} port {}", agent.ip(), agent.port()),
            format!("{server} state ready"),
            // HAProxy takes a server that leaves maintenance for healthy; the first check is to decide instead.
            format!("{server} health down"),
        ],
    }
}

fn leave(slot: &Slot) -> Change {
    let address = redis(slot).map_or_else(String::new, |address| format!(" ({address})"));
    Change {
        what: format!("{}/{}{address}: out, it is announced no more and its check fails", slot.backend, slot.name),
        commands: vec![format!("set server {}/{} state maint", slot.backend, slot.name)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(number: u16) -> Target {
        let at = |port| SocketAddr::from(([10, 0, 0, number as u8], port));
        Target { name: format!("instance {number}"), redis: at(7000 + number), agent: at(8000 + number) }
    }

    fn empty(number: u32) -> Slot {
        Slot {
            backend: "b".into(),
            name: format!("slot{number}"),
            address: "127.0.0.1".parse().ok(),
            port: 1,
            check_address: None,
            check_port: 0,
            maintenance: true,
            up: false,
        }
    }

    fn holding(number: u32, target: &Target, up: bool) -> Slot {
        Slot {
            address: Some(target.redis.ip()),
            port: target.redis.port(),
            check_address: Some(target.agent.ip()),
            check_port: target.agent.port(),
            maintenance: false,
            up,
            ..empty(number)
        }
    }

    fn whats(filling: &Filling) -> Vec<&str> {
        filling.changes.iter().map(|change| change.what.as_str()).collect()
    }

    #[test]
    fn new_members_take_free_slots() {
        let filling = fill("b", &[empty(1), empty(2), empty(3)], &[target(1), target(2)]);
        assert_eq!(
            whats(&filling),
            [
                "b/slot1: instance 1 at 10.0.0.1:7001, checked at 10.0.0.1:8001",
                "b/slot2: instance 2 at 10.0.0.2:7002, checked at 10.0.0.2:8002"
            ]
        );
        assert_eq!(
            filling.changes[0].commands,
            [
                "set server b/slot1 state maint",
                "set server b/slot1 addr 10.0.0.1 port 7001",
                "set server b/slot1 check-addr 10.0.0.1 port 8001",
                "set server b/slot1 state ready",
                "set server b/slot1 health down",
            ]
        );
    }

    #[test]
    fn nothing_is_done_twice_in_any_order() {
        let slots = [holding(1, &target(1), true), holding(2, &target(2), false), empty(3)];
        for targets in [[target(1), target(2)], [target(2), target(1)]] {
            assert_eq!(fill("b", &slots, &targets), Filling::default());
        }
    }

    #[test]
    fn a_member_that_is_gone_leaves_only_when_its_check_fails() {
        assert_eq!(fill("b", &[holding(1, &target(1), true)], &[]), Filling::default());
        let filling = fill("b", &[holding(1, &target(1), false)], &[]);
        assert_eq!(whats(&filling), ["b/slot1 (10.0.0.1:7001): out, it is announced no more and its check fails"]);
        let elsewhere = Slot { backend: "other".into(), ..holding(1, &target(1), true) };
        assert_eq!(
            fill("b", &[holding(1, &target(1), false), elsewhere], &[]),
            Filling::default(),
            "healthy in the other backend"
        );
    }

    #[test]
    fn an_instance_that_moved_is_replaced_and_a_full_house_is_reported() {
        let filling = fill("b", &[holding(1, &target(1), false), holding(2, &target(2), true)], &[target(3), target(2)]);
        assert_eq!(whats(&filling), ["b/slot1: instance 3 at 10.0.0.3:7003, checked at 10.0.0.3:8003"]);
        let filling = fill("b", &[holding(1, &target(1), true)], &[target(2), target(3)]);
        assert_eq!(whats(&filling), ["b/slot1: instance 2 at 10.0.0.2:7002, checked at 10.0.0.2:8002"]);
        assert_eq!(filling.left_out, ["instance 3"]);
    }

    #[test]
    fn a_moved_agent_and_a_doubled_member_are_put_right() {
        let moved = Target { agent: SocketAddr::from(([10, 0, 0, 1], 9)), ..target(1) };
        let filling = fill("b", &[holding(1, &target(1), true), empty(2)], std::slice::from_ref(&moved));
        assert_eq!(whats(&filling), ["b/slot1: instance 1 at 10.0.0.1:7001, checked at 10.0.0.1:9"]);
        let filling = fill("b", &[holding(1, &target(1), true), holding(2, &target(1), true)], &[target(1)]);
        assert_eq!(filling.changes.len(), 1);
        assert_eq!(filling.changes[0].commands, ["set server b/slot2 state maint"]);
    }
}
