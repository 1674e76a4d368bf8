//! What an agent does depends on its version.

/// The ways in which agents of different ages differ, as far as a Port session can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "four independent facts about four releases")]
pub(crate) struct Behaviour {
    /// From 3.0.655.0: data that arrives before the TCP connection is refused; older ones acknowledge and lose it.
    pub(crate) refuses_early_data: bool,
    /// From 3.0.732.0: waits for acknowledgements before it closes.
    pub(crate) drains: bool,
    /// From 3.0.732.0: stops reading the port while publication is paused.
    pub(crate) stops_when_paused: bool,
    /// From 3.2.1041.0: acknowledges duplicates again.
    pub(crate) acknowledges_duplicates: bool,
}

impl Behaviour {
    /// The behaviour of the agent called `version`.
    pub(crate) fn of(version: &str) -> Self {
        let version = components(version);
        Self {
            refuses_early_data: version >= [3, 0, 655, 0],
            drains: version >= [3, 0, 732, 0],
            stops_when_paused: version >= [3, 0, 732, 0],
            acknowledges_duplicates: version >= [3, 2, 1041, 0],
        }
    }
}

fn components(version: &str) -> [u32; 4] {
    let mut numbers = version.split('.').map(|part| part.parse().unwrap_or(0));
    std::array::from_fn(|_| numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_compared_as_numbers() {
        assert!(Behaviour::of("3.2.1041.0").acknowledges_duplicates);
        assert!(!Behaviour::of("3.2.999.0").acknowledges_duplicates);
        assert!(Behaviour::of("3.10.1.0").acknowledges_duplicates);
        assert!(!Behaviour::of("3.0.654.9").refuses_early_data);
    }
}
