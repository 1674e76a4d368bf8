//! A local Session Manager on loopback.
