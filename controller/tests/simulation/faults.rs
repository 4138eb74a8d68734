//! What goes wrong: chosen by the seed, and ended after a while.

use super::network::{FIRST_HOST, KEEPER};
use super::server::A;
use super::world::{What, World};
use controller::view::Ask;

/// A fault that ends.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    Cut(usize, usize),
    Quorum,
}

impl World {
    pub fn active(&self) -> Vec<A> {
        self.tasks.iter().map(|(_, a)| *a).collect()
    }

    /// The next fault, and after some time another one.
    pub fn harm(&mut self) {
        if !self.faults_on {
            return;
        }
        let next = self.dice.between(100_000, 1_500_000);
        self.at(self.now + next, What::Fault);
        self.last_fault = self.now;
        self.ask_for_an_occasion();
        match self.dice.roll(100) {
            0..=33 => self.cut_something(),
            34..=53 => self.slow_something(),
            54..=60 => self.lose_quorum(),
            61..=62 if !self.setup.single => self.empty_all(),
            63..=72 => self.ask_something(),
            73..=76 => self.controller_fault(),
            _ => self.destroy_something(),
        }
    }

    fn cut_something(&mut self) {
        let hosts: Vec<usize> = self.active().iter().map(|a| self.node_of(*a)).collect();
        let Some(host) = self.dice.pick(&hosts) else { return };
        let until = self.now + self.dice.between(200_000, 9_000_000);
        let whole = self.dice.roll(6);
        let others: Vec<usize> = match whole {
            0 => (0..FIRST_HOST + self.hosts.len()).filter(|p| *p != host).collect(),
            1 => vec![KEEPER],
            2 => vec![1, 2],
            3 => vec![1 + self.dice.roll(2) as usize],
            4 => hosts.iter().copied().filter(|p| *p != host).collect(),
            _ => vec![self.dice.roll((FIRST_HOST + self.hosts.len()) as u64) as usize],
        };
        let directions = self.dice.roll(4);
        self.trace(|| format!("fault: host {host} is cut from {others:?} ({directions}) until {until}"));
        for other in others {
            if directions != 0 {
                self.cut_way(host, other, until);
            }
            if directions != 1 {
                self.cut_way(other, host, until);
            }
        }
        self.notice_all();
    }

    pub fn cut_way(&mut self, from: usize, to: usize, until: u64) {
        self.net.cut(from, to);
        self.at(until, What::Ends(Fault::Cut(from, to)));
    }

    pub fn ends(&mut self, fault: &Fault) {
        match fault {
            Fault::Cut(from, to) => self.net.heal(*from, *to),
            Fault::Quorum => {
                return if self.zk.up {
                } else {
                    self.quorum_back()
                };
            }
        }
        self.notice_all();
    }

    /// A frozen agent, a hung server, a host that stands still, a controller that stalls.
    fn slow_something(&mut self) {
        let Some(a) = self.dice.pick(&self.active()) else { return };
        let until = self.now + self.dice.between(100_000, 4_000_000);
        match self.dice.roll(3) {
            0 => self.hang_server(a, until),
            1 => self.freeze_agent(a, until),
            _ => {
                let c = self.dice.roll(2) as usize;
                self.controllers[c].stalled_until = until;
                self.at(until, What::Distrust(c));
            }
        }
    }

    fn hang_server(&mut self, a: A, until: u64) {
        let now = self.now;
        // One that hangs for longer is killed for it.
        let until = if self.setup.single && !self.healthy() { until.min(now + 40_000) } else { until };
        self.trace(|| format!("fault: server of agent {a} hangs until {until}"));
        if let Some(server) = &mut self.agents[a].server {
            (server.hung_until, server.hung_since) = (until, now);
        }
    }

    /// An agent that is frozen beside a live master for longer than its lease has left is beyond what an agent can do: so that one is
    /// frozen no longer than it may be.
    fn freeze_agent(&mut self, a: A, until: u64) {
        let mut until = until;
        if let Some(office) = &self.agents[a].office {
            let end = self.global(a, office.term.end());
            until = until.min(end.saturating_sub(250_000));
        } else if self.agents[a].server.as_ref().is_some_and(|s| s.master && s.open) {
            return;
        }
        if until > self.now && self.agents[a].job.is_none() {
            self.trace(|| format!("fault: agent {a} is frozen until {until}"));
            self.agents[a].frozen_until = until;
        }
    }

    fn lose_quorum(&mut self) {
        if self.zk.up {
            self.trace(|| "fault: ZooKeeper has no quorum".into());
            self.zk.up = false;
            let until = self.now + self.dice.between(300_000, 7_000_000);
            self.at(until, What::Ends(Fault::Quorum));
            self.notice_all();
        }
    }

    fn empty_all(&mut self) {
        self.trace(|| "fault: ZooKeeper is emptied".into());
        self.empty_keeper();
        self.notice_all();
    }

    fn controller_fault(&mut self) {
        let c = self.dice.roll(2) as usize;
        if self.dice.one_in(2) {
            // A controller starts again, or another one gets the first election node.
            self.zk.nodes.leader = None;
        } else {
            let until = self.now + self.dice.between(500_000, 6_000_000);
            self.cut_way(1 + c, KEEPER, until);
            self.notice_all();
        }
    }

    pub fn ask_something(&mut self) {
        let Some(c) = self.zk.nodes.leader else { return };
        let owner = "somebody".to_owned();
        let most = u64::from(self.setup.most);
        let ask = match self.dice.roll(6) {
            0..=2 => Ask::Switchover { owner, to: None, dry_run: false },
            3 => Ask::Switchover { owner, to: Some(self.dice.roll(most) as u32), dry_run: false },
            4 => Ask::Backup { owner, how: None },
            _ => Ask::Scale { owner, instances: self.dice.between(u64::from(self.setup.acks).max(1) + 1, most + 1) as u32 },
        };
        self.trace(|| format!("asked: {ask:?}"));
        self.controllers[c].asked = Some(ask);
    }

    /// Something is lost for good. With one fault at a time, only while everybody holds everything.
    fn destroy_something(&mut self) {
        if self.setup.single && !self.healthy() {
            return;
        }
        let Some(a) = self.dice.pick(&self.active()) else { return };
        match self.dice.roll(10) {
            0..=4 => {
                self.trace(|| format!("fault: server of agent {a} is killed"));
                if let Some(run) = self.agents[a].server.as_ref().map(|s| s.run) {
                    self.server_dies(a, run);
                }
            }
            5..=6 => {
                self.trace(|| format!("fault: agent {a} dies"));
                self.agent_dies(a);
                let late = self.dice.between(100_000, 3_000_000);
                self.at(self.now + late, What::Begin(a));
            }
            7 => self.lose_task(a, true),
            8 => self.lose_task(a, false),
            _ if self.setup.single || !self.dice.one_in(4) => {
                self.trace(|| format!("asked: task of agent {a} ends"));
                self.agents[a].stopping.get_or_insert(self.now);
            }
            _ => {
                self.trace(|| "fault: every task is lost".into());
                self.active().into_iter().for_each(|a| self.lose_task(a, true));
            }
        }
    }

    /// A task is lost with all its data; or only Aurora believes so, and its processes go on.
    pub fn lose_task(&mut self, a: A, truly: bool) {
        self.trace(|| format!("fault: task of agent {a} is lost ({truly})"));
        if truly {
            self.end_task(a);
        }
        let same = truly && self.dice.one_in(2);
        self.replace_task(a, same);
    }

    /// The processes of a task are gone for good.
    pub fn end_task(&mut self, a: A) {
        self.agents[a].alive = false;
        self.agents[a].frozen_until = 0;
        self.agents[a].office = None;
        self.ended.insert(a, self.now);
        if let Some(run) = self.agents[a].server.as_ref().map(|s| s.run) {
            self.server_dies(a, run);
        }
    }

    fn replace_task(&mut self, a: A, same_host: bool) {
        let instance = self.agents[a].instance;
        let host = if same_host { self.agents[a].host } else { self.new_host() };
        if same_host && self.dice.one_in(3) {
            self.hosts[host].boot += 1;
        }
        if let Some(at) = self.tasks.iter().position(|(_, active)| *active == a) {
            let new = self.new_task(instance, host);
            self.tasks[at] = (instance, new);
        }
    }

    /// A task that was asked to end waits until it is no master any more, but not for ever.
    pub fn go_on_stopping(&mut self, a: A) {
        let since = self.agents[a].stopping.unwrap_or(self.now);
        let leads = self.agents[a].server.as_ref().is_some_and(|s| s.master && s.open);
        if !leads || self.now > since + 8_000_000 {
            self.end_task(a);
            self.replace_task(a, true);
        }
    }

    pub fn add_instance(&mut self) {
        let free = (0..).find(|i| !self.tasks.iter().any(|(instance, _)| instance == i)).unwrap_or(0);
        let host = self.new_host();
        let a = self.new_task(free, host);
        self.tasks.push((free, a));
    }

    pub fn kill_instance(&mut self, instance: u32) {
        if let Some((_, a)) = self.tasks.iter().find(|(i, _)| *i == instance).copied() {
            self.trace(|| format!("instance {instance} (agent {a}) is removed"));
            self.end_task(a);
            self.tasks.retain(|(_, active)| *active != a);
        }
    }

    pub fn restart_instance(&mut self, instance: u32) {
        if let Some((_, a)) = self.tasks.iter().find(|(i, _)| *i == instance).copied() {
            self.trace(|| format!("instance {instance} (agent {a}) is restarted"));
            self.end_task(a);
            self.replace_task(a, true);
        }
    }

    pub fn net_is_whole(&self) -> bool {
        let places = FIRST_HOST + self.hosts.len();
        (0..places).all(|a| (0..places).all(|b| self.net.passes(a, b)))
    }

    /// Everything that can be repaired is.
    pub fn heal_all(&mut self) {
        self.trace(|| "everything is repaired".into());
        self.faults_on = false;
        self.ambush = None;
        self.last_fault = self.now;
        self.net.heal_all();
        if !self.zk.up {
            self.quorum_back();
        }
        for a in 0..self.agents.len() {
            self.agents[a].frozen_until = self.agents[a].frozen_until.min(self.now);
            if let Some(server) = &mut self.agents[a].server {
                server.hung_until = server.hung_until.min(self.now);
            }
        }
        // Aurora ends the processes of tasks that it gave up as lost.
        for a in 0..self.agents.len() {
            if !self.active().contains(&a) && !self.ended.contains_key(&a) {
                let late = self.dice.between(500_000, 4_000_000);
                self.at(self.now + late, What::EndTask(a));
            }
        }
        for c in 0..2 {
            self.controllers[c].stalled_until = 0;
            self.distrust(c);
        }
        self.notice_all();
    }
}
