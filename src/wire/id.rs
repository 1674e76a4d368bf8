//! Identifiers out of a seed.

use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

/// A supply of UUIDs in the form of version 4. Two supplies of one seed give the same ids, and within a supply none
/// repeats. They tell messages apart; they are not secrets.
#[derive(Debug, Clone)]
pub struct Ids {
    base: [u8; 16],
    used: u64,
}

impl Ids {
    /// The supply of `seed`.
    pub fn new(seed: u64) -> Self {
        let digest: [u8; 32] = Sha256::digest(seed.to_be_bytes()).into();
        let mut base = [0; 16];
        base.copy_from_slice(digest.split_at(16).0);
        Self { base, used: 0 }
    }

    /// An id not given before.
    pub fn next_id(&mut self) -> Uuid {
        self.used += 1;
        // The odd factor spreads the count over all bits, the low 62 of which survive the variant's mark.
        let count = self.used.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = u128::from_be_bytes(self.base) ^ u128::from(count);
        Builder::from_random_bytes(mixed.to_be_bytes()).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_do_not_repeat_and_follow_the_seed() {
        let (mut one, mut same, mut other) = (Ids::new(1), Ids::new(1), Ids::new(2));
        let ids: Vec<Uuid> = (0..10_000).map(|_| one.next_id()).collect();
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
        assert!(ids.iter().all(|id| id.get_version_num() == 4));
        assert_eq!(ids[0], same.next_id());
        assert_ne!(ids[0], other.next_id());
    }
}
