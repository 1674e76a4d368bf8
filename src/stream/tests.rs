//! The stream over WebSockets in memory, against a scripted node and a scripted control plane.

mod carrying;
mod ending;
mod network;
mod opening;
mod payloads;
mod port;
mod resuming;
mod secure;
mod surviving;
mod world;
