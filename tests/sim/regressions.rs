//! Runs that once failed, by what went wrong in them.

use crate::scenarios::behind_a_queue;

#[test]
fn a_probe_acknowledged_behind_a_queue_set_off_a_resend_of_everything() {
    let outcome = behind_a_queue().run(0);
    assert!(outcome.resent <= 8, "{outcome:?}");
}
