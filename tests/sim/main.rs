//! The data channel's engine against a model of the agent, over a network that misbehaves, in virtual time.
//!
//! A run is fixed by its scenario and its seed. After every step the world checks what must always hold ([`watch`]);
//! at the end, that the run came to its goal within the scenario's limit of simulated time. A seed that fails becomes
//! a test of its own in `regressions.rs`.

mod agent;
mod app;
mod corpus;
#[path = "../../fuzz/inputs.rs"]
mod inputs;
mod link;
mod matrix;
mod regressions;
mod rng;
mod scenarios;
mod watch;
mod world;
