//! In-process tests: the whole product over the lab, its parts against real peers, and the house rules.

mod architecture;
mod dependencies;
mod ssh_openssh;
mod stream;
mod support;
