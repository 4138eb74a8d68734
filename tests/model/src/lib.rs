//! The model check: the protocol of one writer and of confirmed writes, as two small state machines of which **every** state within stated bounds is
//! visited. [`lease`] is about who may write: lease, evidence, failsafe, the record made anew. [`data`] is about what is kept: members,
//! confirmations, cut-then-ask, the choice of a winner; that there is one writer it takes from the first.
//!
//! The models are the protocol, not the programs: they were written from its rules and share no code with the agent or the controller. They show
//! that the *rules* are enough, and that none can be spared; that the programs follow the rules is for simulation and fault tests.
//!
//! # How to read them
//!
//! | file | what |
//! |---|---|
//! | `rules.rs` | the rules by name; each can be taken away |
//! | `state.rs` | what there is |
//! | `actions.rs` | what can happen in a state |
//! | `controller.rs`, `agent.rs`; `members.rs`, `choose.rs` | how each step changes it, with the rules where they act |
//! | `properties.rs` | promises, which must always hold; and what must be reached, so that the runs mean something |
//! | `bounds.rs`, `runs.rs` | how far a run goes; the runs |
//!
//! # What is in them
//!
//! - Three instances, two controllers that both believe they lead, up to three epochs.
//! - **Messages** may be lost, late, repeated and reordered: any command about any version of the record may arrive at any time, once, often or never.
//!   A renewal may commit although its answer is lost, or after its sender gave it up. A promise may be heard long after it was given.
//! - **Time** in ticks, relative: leases, promises and waits count down. A tick that the lease holder's clock misses is drift.
//! - **Reads of ZooKeeper** may be old: an agent obeys any version later than its own. A controller on an old version can do nothing, as every change of the
//!   record is a compare-and-set.
//! - **Faults**: silence of anybody at any time (nobody ever has to act), restarts with and without data, hosts that go for ever, agents cut off from the
//!   controller, broken links, copies that are being loaded, ZooKeeper emptied.
//! - Lists of members that grow and shrink beside the lease; masters that choose whom they would ask; planned changes that are given up.
//!
//! # What bounds mean
//!
//! Bounds limit how *many* of something there are in one history (epochs, versions of the record, restarts, ...) and how long a lease is in ticks. They do not
//! limit when things happen: within them every order is visited. "Explored completely" therefore says: no history within these bounds breaks a promise.
//! It says nothing about histories beyond them; the few runs of `make soak` go further, for some minutes more. States are told apart by a
//! fingerprint of 64 bits; that two among millions share one is possible but not likely (some 10⁻⁶ at ten million).
//!
//! # What is not in them
//!
//! Testimony (as evidence it is worth what the confirmation of a fence is worth, so [`lease`] does not tell them apart), consent, restore and snapshots, restarts
//! from an older dump, credentials, how a server pauses and how long that takes (a step is taken in no time), continuous clocks, more than three
//! instances, two losses of ZooKeeper's data, a host that lives on beside the task that replaced it (it is silent, its successor another instance), fairness: of
//! "never stuck" only that what was learnt suffices is shown, not that it is ever learnt.
//!
//! # How to run it
//!
//! ```sh
//! cargo test -p model                   # the runs of `make test`
//! cargo run -p model -- sound           # the same, with the states explored in each
//! cargo run -p model -- rules           # every rule taken away, and what breaks
//! cargo run -p model -- ways AskUnion   # the same for one rule, step by step
//! cargo run -p model -- soak            # bigger bounds
//! ```

pub mod check;
pub mod data;
pub mod lease;
pub mod protocol;
mod set;
