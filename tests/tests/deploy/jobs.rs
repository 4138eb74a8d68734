//! The `.aurora` files, evaluated by the real pystachio.

use crate::{run, tool};

#[test]
fn the_evaluator_and_our_files_pass_their_own_tests() {
    run(tool("python3").args(["-m", "unittest", "discover", "deploy/tests"]));
}
