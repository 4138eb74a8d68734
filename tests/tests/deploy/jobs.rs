//! The `.aurora` files, evaluated by the real pystachio.

use crate::{python, run};

#[test]
fn the_evaluator_and_our_files_pass_their_own_tests() {
    run(python().args(["-m", "unittest", "discover", "deploy/tests"]));
}
