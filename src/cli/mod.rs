//! Shared by both commands.
