//! The dataset as a tree of writes: a copy is a place in it, and holds everything on the way to the root.

use std::rc::Rc;

/// A place in the tree.
pub(super) type Head = usize;

/// The empty dataset.
pub(super) const EMPTY: Head = 0;

#[derive(Clone, Copy)]
struct Node {
    parent: Head,
    /// An ancestor further away, for fast walks.
    jump: Head,
    depth: u64,
}

/// Every write that any server ever took.
pub(super) struct Tree(Vec<Node>);

impl Tree {
    pub fn new() -> Tree {
        Tree(vec![Node { parent: EMPTY, jump: EMPTY, depth: 0 }])
    }

    pub fn depth(&self, head: Head) -> u64 {
        self.0[head].depth
    }

    pub fn write(&mut self, head: Head) -> Head {
        let (up, depth) = (self.0[head].jump, self.0[head].depth + 1);
        let further = self.0[up].jump;
        let jumps_on = self.0[head].depth - self.0[up].depth == self.0[up].depth - self.0[further].depth;
        self.0.push(Node { parent: head, jump: if jumps_on { further } else { head }, depth });
        self.0.len() - 1
    }

    /// Whether a copy at `head` holds everything that one at `part` holds.
    pub fn holds(&self, head: Head, part: Head) -> bool {
        self.ancestor(head, self.depth(part)) == part
    }

    /// The place at this depth on the way to the root.
    pub fn ancestor(&self, mut head: Head, depth: u64) -> Head {
        while self.0[head].depth > depth {
            let jump = self.0[head].jump;
            head = if self.0[jump].depth >= depth { jump } else { self.0[head].parent };
        }
        head
    }
}

/// A dump in a sandbox, or a snapshot in the store.
#[derive(Clone)]
pub(super) struct Dump {
    pub head: Head,
    pub replid: Rc<str>,
    pub offset: u64,
    /// Assigned epoch of the server that wrote it.
    pub epoch: u64,
    pub name: String,
}
