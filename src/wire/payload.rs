//! What the payload of a stream message is.

/// The `PayloadType` field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PayloadType {
    /// Bytes of the stream, both ways.
    Output,
    /// Defined, never sent.
    Error,
    /// Terminal size, shell sessions only: [`Size`](super::Size).
    Size,
    /// Defined, never sent.
    Parameter,
    /// [`HandshakeRequest`](super::HandshakeRequest), agent to client.
    HandshakeRequest,
    /// [`HandshakeResponse`](super::HandshakeResponse), client to agent.
    HandshakeResponse,
    /// [`HandshakeComplete`](super::HandshakeComplete), agent to client.
    HandshakeComplete,
    /// [`EncryptionChallenge`](super::EncryptionChallenge), agent to client.
    EncChallengeRequest,
    /// [`EncryptionChallenge`](super::EncryptionChallenge), client to agent.
    EncChallengeResponse,
    /// A [`Flag`], both ways.
    Flag,
    /// Standard error of a non-interactive command.
    StdErr,
    /// Exit code of a non-interactive command, as text.
    ExitCode,
    /// Anything else, as sent. 0 stands where there is no payload type.
    Other(u32),
}

impl PayloadType {
    /// What messages that are not stream data carry.
    pub const NONE: Self = Self::Other(0);
}

impl From<u32> for PayloadType {
    fn from(code: u32) -> Self {
        match code {
            1 => Self::Output,
            2 => Self::Error,
            3 => Self::Size,
            4 => Self::Parameter,
            5 => Self::HandshakeRequest,
            6 => Self::HandshakeResponse,
            7 => Self::HandshakeComplete,
            8 => Self::EncChallengeRequest,
            9 => Self::EncChallengeResponse,
            10 => Self::Flag,
            11 => Self::StdErr,
            12 => Self::ExitCode,
            other => Self::Other(other),
        }
    }
}

impl From<PayloadType> for u32 {
    fn from(payload_type: PayloadType) -> Self {
        match payload_type {
            PayloadType::Output => 1,
            PayloadType::Error => 2,
            PayloadType::Size => 3,
            PayloadType::Parameter => 4,
            PayloadType::HandshakeRequest => 5,
            PayloadType::HandshakeResponse => 6,
            PayloadType::HandshakeComplete => 7,
            PayloadType::EncChallengeRequest => 8,
            PayloadType::EncChallengeResponse => 9,
            PayloadType::Flag => 10,
            PayloadType::StdErr => 11,
            PayloadType::ExitCode => 12,
            PayloadType::Other(code) => code,
        }
    }
}

/// The payload of a [`PayloadType::Flag`] message: four bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Flag {
    /// The client's local connection ended. Ends an SSH session as failed; only port forwarding sends it.
    DisconnectToPort,
    /// The client ends the session.
    TerminateSession,
    /// The agent could not connect to the port; only multiplexed sessions send it.
    ConnectToPortError,
    /// Anything else, as sent.
    Other(u32),
}

impl Flag {
    /// The flag in `payload`, unless that is not four bytes.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        Some(match u32::from_be_bytes(payload.try_into().ok()?) {
            1 => Self::DisconnectToPort,
            2 => Self::TerminateSession,
            3 => Self::ConnectToPortError,
            other => Self::Other(other),
        })
    }

    /// The payload of this flag.
    pub fn encode(self) -> [u8; 4] {
        let code: u32 = match self {
            Self::DisconnectToPort => 1,
            Self::TerminateSession => 2,
            Self::ConnectToPortError => 3,
            Self::Other(code) => code,
        };
        code.to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_both_directions() {
        for code in 0..300 {
            assert_eq!(u32::from(PayloadType::from(code)), code);
            assert_eq!(Flag::decode(&code.to_be_bytes()).map(Flag::encode), Some(code.to_be_bytes()));
        }
    }

    #[test]
    fn a_flag_is_four_bytes() {
        assert_eq!(Flag::decode(&[0, 0, 0, 2]), Some(Flag::TerminateSession));
        assert_eq!(Flag::decode(&[0, 0, 2]), None);
        assert_eq!(Flag::decode(&[0, 0, 0, 2, 0]), None);
    }
}
