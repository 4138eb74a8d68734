//! Testimony about processes of this host: evidence for a failover when a task has vanished without a word.
//!
//! Invariant: `gone` is only said of processes that this agent could have seen: same host id and host name, and then either another boot,
//! or the same boot and pid namespace and no process of that pid and start time.

use crate::api::{Host, Verdict};
use crate::process::{self, Stat};
use crate::record::Member;

/// Answers for the server of `member`, asking the kernel.
pub(crate) fn testify(member: &Member, here: &Host) -> Verdict {
    judge(member, here, |pid| process::stat(pid).unwrap_or(Some(UNREADABLE)))
}

/// What cannot be read counts as there.
const UNREADABLE: Stat = Stat { state: '?', start_ticks: u64::MAX, cpu_ticks: 0, exit_code: 0 };

fn judge(member: &Member, here: &Host, stat: impl Fn(u32) -> Option<Stat>) -> Verdict {
    let there = &member.host;
    let known = |h: &Host| !h.host_id.is_empty() && !h.name.is_empty() && !h.boot_id.is_empty();
    if !known(here) || !known(there) || there.host_id != here.host_id || there.name != here.name {
        return Verdict::NotMine;
    }
    if there.boot_id != here.boot_id {
        return Verdict::OtherBoot;
    }
    if there.pid_ns.is_empty() || there.pid_ns != here.pid_ns || member.redis_pid == 0 || member.redis_start_ticks == 0 {
        return Verdict::NotMine;
    }
    match stat(member.redis_pid) {
        None => Verdict::ProcessGone,
        Some(seen) if seen.start_ticks == u64::MAX => Verdict::Alive,
        Some(seen) if seen.start_ticks != member.redis_start_ticks || seen.is_dead() => Verdict::ProcessGone,
        Some(_) => Verdict::Alive,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Host {
        Host { host_id: "h".into(), name: "10.0.0.1".into(), boot_id: "b".into(), pid_ns: "pid:[1]".into() }
    }

    fn member(change: impl FnOnce(&mut Member)) -> Member {
        let mut member = Member { host: host(), redis_pid: 7, redis_start_ticks: 70, ..Member::default() };
        change(&mut member);
        member
    }

    fn there(state: char, start_ticks: u64) -> impl Fn(u32) -> Option<Stat> {
        move |_| Some(Stat { state, start_ticks, cpu_ticks: 0, exit_code: 0 })
    }

    #[test]
    fn a_process_of_that_pid_and_start_time_is_alive() {
        assert_eq!(judge(&member(|_| {}), &host(), there('S', 70)), Verdict::Alive);
        assert_eq!(judge(&member(|_| {}), &host(), |_| Some(UNREADABLE)), Verdict::Alive);
    }

    #[test]
    fn gone_means_no_such_process_a_zombie_or_a_pid_used_again() {
        assert_eq!(judge(&member(|_| {}), &host(), |_| None), Verdict::ProcessGone);
        assert_eq!(judge(&member(|_| {}), &host(), there('Z', 70)), Verdict::ProcessGone);
        assert_eq!(judge(&member(|_| {}), &host(), there('S', 71)), Verdict::ProcessGone);
    }

    #[test]
    fn another_boot_ended_everything() {
        assert_eq!(judge(&member(|m| m.host.boot_id = "a".into()), &host(), there('S', 70)), Verdict::OtherBoot);
    }

    #[test]
    fn another_host_name_or_namespace_or_an_unknown_process_is_not_mine() {
        let cases: [fn(&mut Member); 7] = [
            |m| m.host.host_id = "i".into(),
            |m| m.host.name = "10.0.0.2".into(),
            |m| m.host.pid_ns = "pid:[2]".into(),
            |m| m.host.host_id.clear(),
            |m| m.host.boot_id.clear(),
            |m| m.redis_pid = 0,
            |m| m.redis_start_ticks = 0,
        ];
        for change in cases {
            assert_eq!(judge(&member(change), &host(), |_| None), Verdict::NotMine);
        }
        let nameless = Host { name: String::new(), ..host() };
        assert_eq!(judge(&member(|m| m.host = nameless.clone()), &nameless, |_| None), Verdict::NotMine);
    }
}
