//! Who may replicate, who is a member, how one is removed.

use super::state::{INSTANCES, State};
use super::{Action, Model, Rule};

impl Model {
    /// The member that a server is now: its instance, and whether it was restarted.
    pub(super) fn bit(&self, s: &State, i: usize) -> u8 {
        self.member(i as u8, s.servers[i].run)
    }

    /// The member that one run of an instance is.
    pub(super) fn member(&self, instance: u8, run: u8) -> u8 {
        if self.keeps(Rule::MemberIsOneRun) { instance + 3 * run } else { instance }
    }

    /// Whether the master's agent admits a server.
    pub(super) fn may_link(&self, s: &State, i: usize) -> bool {
        let member = self.bit(s, i);
        let admitted = if self.keeps(Rule::AdmitAfterRenewal) {
            s.renewed_members.has(member) && !s.renewed_removing.has(member)
        } else {
            s.members.has(member)
        };
        !s.servers[i].cut && (admitted || !self.keeps(Rule::OnlyMembersReplicate))
    }

    /// Whether as many replicas hold a write as must.
    pub(super) fn enough_hold(&self, s: &State, write: u8) -> bool {
        let replicas = (0..INSTANCES).filter(|i| s.follows(*i) && s.servers[*i].log.holds(write)).count() as u8;
        let readers = u8::from(!self.keeps(Rule::ReadersConfirmNothing));
        replicas + readers >= s.acks
    }

    /// Whether every member holds all that the master holds, and they are as many as must confirm a write.
    pub(super) fn all_hold_all(&self, s: &State) -> bool {
        let Some(master) = s.serving() else { return false };
        let enough = s.members.len() >= s.acks || !self.keeps(Rule::HeldByEnough);
        let len = s.servers[master].log.len;
        enough
            && s.members
                .iter()
                .all(|m| (0..INSTANCES).any(|i| self.bit(s, i) == m && s.follows(i) && s.servers[i].log.len == len))
    }

    /// Steps of a removal, while the master's agent can be reached.
    pub(super) fn removal(&self, s: &State, out: &mut Vec<Action>) {
        for member in s.members.iter() {
            let marked = s.removing.has(member);
            let begun = s.spent.removals < self.bounds.removals;
            if !self.keeps(Rule::CutBeforeRemoval) {
                if begun {
                    out.push(Action::Remove(member));
                }
                continue;
            }
            if self.keeps(Rule::MarkBeforeRemoval) && begun && !marked {
                out.push(Action::Mark(member));
            }
            // The master's agent acts on the version it renewed against, which may be an old one.
            let may_cut =
                if self.keeps(Rule::MarkBeforeRemoval) { s.renewed_removing.has(member) } else { begun && s.cut_off.is_none() };
            if may_cut {
                out.push(Action::CutMember(member));
            }
            if self.may_remove(s, member) {
                out.push(Action::Remove(member));
            }
        }
    }

    /// Whether the controller may delete a member that the master has cut.
    fn may_remove(&self, s: &State, member: u8) -> bool {
        let Some((_, upto, valid)) = s.cut_off.filter(|(cut, ..)| *cut == member) else { return false };
        let for_mark = valid || !self.keeps(Rule::ConfirmationForMark) || !self.keeps(Rule::MarkBeforeRemoval);
        for_mark && self.others_suffice(s, member, upto)
    }

    /// Whether the others can spare a member that was cut when so much was written.
    fn others_suffice(&self, s: &State, member: u8, upto: u8) -> bool {
        let rest = s.members.without(member);
        let caught_up = |i: &usize| rest.has(self.bit(s, *i)) && s.follows(*i) && s.servers[*i].log.len >= upto;
        let holding = (0..INSTANCES).filter(caught_up).count() as u8;
        let held = !self.keeps(Rule::OthersCaughtUp) || holding >= s.acks.min(rest.len());
        held && (!self.keeps(Rule::EnoughMembersStay) || rest.len() >= s.acks)
    }
}
