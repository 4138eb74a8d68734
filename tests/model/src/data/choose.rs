//! Whom the controller asks, when it has heard enough, and who leads.

use super::state::{Answer, INSTANCES, Log, Phase, State};
use super::{Model, Rule};

impl Model {
    /// Whether an instance would say something that it has not said.
    pub(super) fn worth_asking(&self, s: &State, i: usize) -> bool {
        s.answers[i].is_none_or(|said| !said.complete && said != self.answer(s, i))
    }

    /// What a server says about itself.
    pub(super) fn answer(&self, s: &State, i: usize) -> Answer {
        let server = &s.servers[i];
        let may_complete = server.loading.is_some() && (!self.bounds.diskless || s.linked(i));
        let complete = server.loading.is_none() && server.complete;
        Answer { run: server.run, log: server.log, complete, confirmed_nothing: !server.complete, loading: may_complete }
    }

    /// How much of a copy belongs to the history that the record tells: the writes before the first that stands where another epoch reigned.
    pub(super) fn of_our_history(&self, s: &State, log: &Log) -> u8 {
        let last = s.epoch_served();
        let in_place = |(position, write): (usize, &u8)| {
            let epoch = s.written_in[*write as usize];
            let begin = s.begins[epoch as usize];
            let end = if epoch < last { s.begins[epoch as usize + 1] } else { u8::MAX };
            (begin..end).contains(&(position as u8))
        };
        let parted = log.writes().iter().enumerate().position(|entry| !in_place(entry));
        parted.filter(|_| self.keeps(Rule::OneHistory)).map_or(log.len, |at| at as u8)
    }

    /// Whether a copy is ahead of where the histories parted.
    pub(super) fn forked(&self, s: &State, log: &Log) -> bool {
        self.of_our_history(s, log) < log.len
    }

    /// The complete answers.
    fn copies<'a>(&'a self, s: &'a State) -> impl Iterator<Item = (usize, Answer)> + 'a {
        s.answers.iter().enumerate().filter_map(|(i, a)| a.filter(|a| a.complete).map(|a| (i, a)))
    }

    /// How far the winner must reach. A copy that cannot lead counts, one that forked with its part before the fork.
    pub(super) fn longest(&self, s: &State) -> Option<u8> {
        let counts = |i: usize, log: &Log| {
            let fit = self.keeps(Rule::LongestCopyLeads) || self.bounds.unfit != Some(i as u8);
            fit && (self.keeps(Rule::ForkedCopiesCount) || !self.forked(s, log))
        };
        let copies = self.copies(s).filter(|(i, a)| counts(*i, &a.log));
        copies.map(|(_, a)| self.of_our_history(s, &a.log)).max()
    }

    /// Whether enough was heard to choose.
    pub(super) fn heard_enough(&self, s: &State) -> bool {
        let counts = |(i, answer): (usize, &Option<Answer>)| {
            answer.is_some_and(|a| {
                let says = a.complete || a.confirmed_nothing || !self.keeps(Rule::OnlyCompleteCopies);
                says && s.members.has(self.member(i as u8, a.run))
            })
        };
        let heard = s.answers.iter().enumerate().filter(|x| counts(*x)).count() as u8;
        let acks = if self.keeps(Rule::FewestConfirmations) { s.fewest_acks } else { s.acks };
        let needed = (s.members.len() + 1).saturating_sub(acks).max(1);
        !self.keeps(Rule::Quorum)
            || heard >= needed
            || self.keeps(Rule::MasterIsQuorum) && self.master_answered(s)
            || self.keeps(Rule::AllAccountedFor) && self.all_accounted_for(s)
    }

    /// Whether the deposed master's own run has answered.
    pub(super) fn master_answered(&self, s: &State) -> bool {
        s.answers[s.master.instance as usize].is_some_and(|a| a.complete && a.run == s.master.run)
    }

    /// Whether the deposed master and every member has answered, or is proven dead.
    pub(super) fn all_accounted_for(&self, s: &State) -> bool {
        let master = s.master.instance + 3 * s.master.run;
        let awaited = |a: Answer| a.loading && self.keeps(Rule::LoadingIsAwaited);
        let settled = |a: Answer| a.confirmed_nothing && !awaited(a);
        (0..6u8).filter(|m| s.members.has(*m) || *m == master).all(|m| {
            let (i, run) = ((m % 3) as usize, m / 3);
            let server = &s.servers[i];
            let answered = s.answers[i].is_some_and(|a| a.run == run && (a.complete || settled(a)));
            let runs = server.up && server.run == run;
            let provable = !server.silent && !s.unreachable.has(i as u8);
            answered || !runs && provable
        })
    }

    /// Whether a server may be named as winner now.
    pub(super) fn may_lead(&self, s: &State, i: usize) -> bool {
        let Some(answer) = s.answers[i].filter(|a| a.complete && !self.forked(s, &a.log)) else { return false };
        let server = &s.servers[i];
        let right_run = answer.run == server.run;
        let longest = Some(answer.log.len) == self.longest(s);
        let fit = self.bounds.unfit != Some(i as u8);
        server.up && right_run && longest && fit && self.heard_enough(s) && self.plan_is_kept(s, i)
    }

    /// A planned change promotes only who holds all that the old master, if it lives, holds after its fence.
    fn plan_is_kept(&self, s: &State, i: usize) -> bool {
        let old = &s.servers[s.master.instance as usize];
        let lives = old.up && old.run == s.master.run;
        let planned = s.phase == Phase::Deposing { planned: true };
        !planned || !lives || !self.keeps(Rule::PlannedAfterFence) || old.log.begins(&s.servers[i].log)
    }

    /// Whether a fit candidate may first follow a longer copy that cannot lead.
    pub(super) fn may_catch_up(&self, s: &State, i: usize) -> bool {
        let Some(unfit) = self.bounds.unfit.map(usize::from).filter(|u| *u != i) else { return false };
        let (Some(mine), Some(theirs)) = (s.answers[i], s.answers[unfit]) else { return false };
        let source =
            theirs.complete && !self.forked(s, &theirs.log) && s.servers[unfit].up && Some(theirs.log.len) == self.longest(s);
        mine.complete
            && s.servers[i].up
            && source
            && mine.log.len < theirs.log.len
            && mine.log.begins(&theirs.log)
            && self.heard_enough(s)
    }

    /// Whether the winner's instance runs a later start of its server than the record names.
    pub(super) fn restarted_winner(&self, s: &State) -> bool {
        let server = &s.servers[s.master.instance as usize];
        server.up && server.run > s.master.run && s.epoch > 1
    }

    /// Whether nobody leads and nobody can, although all that could be known is known. (Where only a copy that forked holds a write, a person must consent.)
    pub(super) fn is_stuck(&self, s: &State) -> bool {
        let chosen = |i: usize| self.may_lead(s, i) || self.may_catch_up(s, i);
        let known = self.master_answered(s) || self.all_accounted_for(s);
        let lives = |i: usize, a: &Answer| s.servers[i].up && s.servers[i].run == a.run;
        let forks = self.copies(s).filter(|(i, a)| lives(*i, a) && self.forked(s, &a.log));
        let fork = forks.map(|(_, a)| self.of_our_history(s, &a.log)).max().unwrap_or(0);
        let fit = |i: usize, a: &Answer| self.bounds.unfit != Some(i as u8) && !self.forked(s, &a.log) && a.log.len >= fork;
        let fit_copy = self.copies(s).any(|(i, a)| lives(i, &a) && fit(i, &a));
        let planned = s.phase == Phase::Deposing { planned: true };
        s.choosing() && !planned && s.serving().is_none() && known && fit_copy && !(0..INSTANCES).any(chosen)
    }
}
