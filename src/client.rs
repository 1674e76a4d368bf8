//! Where the two legs meet.

/// Reaches managed nodes.
pub struct Client(());
/// Builds a [`Client`].
pub struct ClientBuilder(());
/// An SSH session over an SSM session.
pub struct Connection(());
/// What can go wrong.
#[derive(Debug, thiserror::Error)]
#[error("skeleton")]
pub struct ClientError(());
