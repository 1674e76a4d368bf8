//! The switches of what goes wrong.

use std::{
    num::{NonZeroU32, NonZeroU64, NonZeroUsize},
    time::Duration,
};

use clap::{ArgAction, Parser, ValueEnum};
use ssm_lab::{Cut, Faults, LabBuilder, Oversize};

use super::{POSITIVE, WHOLE, probability, units};

/// Faults of the link, the service and the node.
#[derive(Debug, Parser)]
pub(super) struct FaultArgs {
    /// One-way delay of every relayed message, such as 30ms
    #[arg(long, value_name = "TIME", value_parser = units::time_option)]
    delay: Option<Duration>,

    /// Most random delay on top of it
    #[arg(long, value_name = "TIME", value_parser = units::time_option)]
    jitter: Option<Duration>,

    /// Bytes a second that pass each way, such as 250K; each session has its own
    #[arg(long, value_name = "SIZE", value_parser = units::sizes::<NonZeroU64>(1..=u64::MAX))]
    rate: Option<NonZeroU64>,

    /// Bytes that queue in front of a link with a rate [default: 1M]
    #[arg(long, value_name = "SIZE", requires = "rate", value_parser = units::sizes::<usize>(0..=u64::MAX))]
    queue: Option<usize>,

    /// Probability that a relayed message is lost, 0 to 1
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = probability)]
    loss: f64,

    /// Probability that a relayed message is doubled, 0 to 1
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = probability)]
    duplicate: f64,

    /// Probability that a relayed message is overtaken, 0 to 1
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = probability)]
    reorder: f64,

    /// Seed of all that is random
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = units::numbers::<u64>(WHOLE))]
    seed: u64,

    /// How --cut-every, --cut-after and the like end the client's socket
    #[arg(long, value_enum, default_value_t = CutArg::Bye)]
    cut: CutArg,

    /// The only session that is cut, by its number, 1 being the first [default: every session]
    #[arg(long, value_name = "N", value_parser = units::numbers::<NonZeroUsize>(POSITIVE))]
    cut_session: Option<NonZeroUsize>,

    /// How long a silence lasts [default: for ever]
    #[arg(long, value_name = "TIME", value_parser = units::time_option)]
    silence: Option<Duration>,

    /// Cuts the client's socket this long after it was opened, again and again
    #[arg(long, value_name = "TIME", value_parser = units::time_option)]
    cut_every: Option<Duration>,

    /// Cuts the client's socket once, after this many relayed messages
    #[arg(long, value_name = "N", value_parser = units::numbers::<u64>(WHOLE))]
    cut_after: Option<u64>,

    /// Cuts the client's socket after every N relayed messages
    #[arg(long, value_name = "N", value_parser = units::numbers::<NonZeroU64>(POSITIVE))]
    cut_every_messages: Option<NonZeroU64>,

    /// Cuts the client's socket during the handshake, so many times
    #[arg(long, value_name = "TIMES", default_value_t = 0, value_parser = units::numbers::<u32>(WHOLE))]
    cut_handshake: u32,

    /// Frames a second above which a client is cut after two seconds
    #[arg(long, value_name = "N", value_parser = units::numbers::<NonZeroU32>(POSITIVE))]
    frame_limit: Option<NonZeroU32>,

    /// Largest payload that is taken from a client
    #[arg(long, value_name = "SIZE", value_parser = units::sizes::<usize>(0..=u64::MAX))]
    payload_limit: Option<usize>,

    /// What becomes of a larger one
    #[arg(long, value_enum, default_value_t = OversizeArg::Drop, requires = "payload_limit")]
    oversize: OversizeArg,

    /// Gives the service's own messages wrong digests, lengths and paddings
    #[arg(long, action = ArgAction::SetTrue)]
    odd_messages: bool,

    /// Sends the client a malformed frame before every N messages
    #[arg(long, value_name = "N", value_parser = units::numbers::<NonZeroU64>(POSITIVE))]
    malformed_every: Option<NonZeroU64>,

    /// Sends the client one frame of so many bytes, of an unknown type, first
    #[arg(long, value_name = "SIZE", value_parser = units::sizes::<usize>(0..=u64::MAX))]
    oversized_frame: Option<usize>,

    /// Sends messages to the client in WebSocket fragments of at most so many bytes
    #[arg(long, value_name = "N", value_parser = units::numbers::<NonZeroUsize>(POSITIVE))]
    fragment: Option<NonZeroUsize>,

    /// Ends sessions without data for this long
    #[arg(long, value_name = "TIME", value_parser = units::time_option)]
    idle_timeout: Option<Duration>,

    /// Ends sessions this long after their start
    #[arg(long, value_name = "TIME", value_parser = units::time_option)]
    max_duration: Option<Duration>,

    /// Lets ResumeSession answer that the session is over
    #[arg(long)]
    refuse_resume: bool,

    /// The server behind the node takes connections and neither reads nor writes
    #[arg(long)]
    stalled_port: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum CutArg {
    /// Close code 1000 and the reason "Bye"
    Bye,
    /// A TCP reset
    Reset,
    /// An open socket through which nothing passes
    Silence,
    /// The three in turn
    Alternate,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum OversizeArg {
    /// It is dropped
    Drop,
    /// The socket is closed with code 1009
    Close,
}

impl FaultArgs {
    pub(super) fn apply(&self, builder: LabBuilder) -> LabBuilder {
        let mut faults = Faults::default();
        self.set_link(&mut faults);
        self.set_cuts(&mut faults);
        faults.frame_limit = self.frame_limit;
        faults.payload_limit = self.payload_limit;
        faults.oversize = self.oversize.into();
        faults.odd_messages = self.odd_messages;
        faults.malformed_every = self.malformed_every;
        faults.oversized_frame = self.oversized_frame;
        faults.fragment = self.fragment;
        faults.idle_timeout = self.idle_timeout;
        faults.max_duration = self.max_duration;
        faults.refuse_resume = self.refuse_resume;
        faults.stalled_port = self.stalled_port;
        builder.faults(faults)
    }

    fn set_link(&self, faults: &mut Faults) {
        faults.delay = self.delay.unwrap_or_default();
        faults.jitter = self.jitter.unwrap_or_default();
        faults.rate = self.rate;
        faults.queue = self.queue.unwrap_or(faults.queue);
        faults.loss = self.loss;
        faults.duplicate = self.duplicate;
        faults.reorder = self.reorder;
        faults.seed = self.seed;
    }

    fn set_cuts(&self, faults: &mut Faults) {
        faults.cuts = self.cut.cuts();
        faults.cut_session = self.cut_session;
        faults.silence = self.silence;
        faults.cut_every = self.cut_every;
        faults.cut_after_messages = self.cut_after;
        faults.cut_every_messages = self.cut_every_messages;
        faults.cut_handshakes = self.cut_handshake;
    }
}

impl CutArg {
    fn cuts(self) -> Vec<Cut> {
        match self {
            Self::Bye => vec![Cut::Bye],
            Self::Reset => vec![Cut::Reset],
            Self::Silence => vec![Cut::Silence],
            Self::Alternate => vec![Cut::Bye, Cut::Reset, Cut::Silence],
        }
    }
}

impl From<OversizeArg> for Oversize {
    fn from(oversize: OversizeArg) -> Self {
        match oversize {
            OversizeArg::Drop => Self::Drop,
            OversizeArg::Close => Self::Close,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(arguments: &[&str]) -> Faults {
        let args = FaultArgs::try_parse_from([&["lab"], arguments].concat()).unwrap();
        let mut faults = Faults::default();
        args.set_link(&mut faults);
        args.set_cuts(&mut faults);
        faults
    }

    #[test]
    fn nothing_typed_is_nothing_wrong() {
        assert_eq!(faults(&[]), Faults::default());
    }

    #[test]
    fn alternate_is_every_way_in_turn() {
        let faults = faults(&["--cut", "alternate", "--cut-every", "3s", "--silence", "5s"]);
        assert_eq!(faults.cuts, [Cut::Bye, Cut::Reset, Cut::Silence]);
        assert_eq!((faults.cut_every, faults.silence), (Some(Duration::from_secs(3)), Some(Duration::from_secs(5))));
    }
}
