//! Which algorithms are offered, and in which order.

use russh::{
    Preferred, cipher, compression, kex,
    keys::{Algorithm, EcdsaCurve, HashAlg},
};

/// NIST curves, which russh knows but does not offer, go before the slow Diffie-Hellman groups: servers in FIPS mode have
/// nothing else that is fast.
const KEX: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::ECDH_SHA2_NISTP256,
    kex::ECDH_SHA2_NISTP384,
    kex::ECDH_SHA2_NISTP521,
    kex::DH_G16_SHA512,
    kex::DH_G18_SHA512,
    kex::DH_GEX_SHA256,
    kex::DH_G14_SHA256,
    kex::EXTENSION_SUPPORT_AS_CLIENT,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
];

/// AES-GCM first: it is the fastest on any processor with AES instructions.
const CIPHERS: &[cipher::Name] = &[
    cipher::AES_128_GCM,
    cipher::AES_256_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_128_CTR,
    cipher::AES_192_CTR,
    cipher::AES_256_CTR,
];

/// Host keys, without `ssh-rsa`, whose signatures are SHA-1.
const HOST_KEYS: [Algorithm; 6] = [
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
    Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
    Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
];

/// Compression that begins after the login, so that nobody reaches a server's inflater without one. What is preferred
/// comes first; a server that has no compression still gets a session, and so does one that has nothing else.
const COMPRESSED: &[compression::Name] = &[compression::ZLIB_LEGACY, compression::NONE];
const PLAIN: &[compression::Name] = &[compression::NONE, compression::ZLIB_LEGACY];

/// The offer for a host of which keys of the types `known` are on record: the server is to show one of those.
pub(super) fn preferred(known: &[String], compress: bool) -> Preferred {
    let mut key = HOST_KEYS.to_vec();
    key.sort_by_key(|algorithm| !known.iter().any(|known| known == key_type(algorithm)));
    let compression = if compress { COMPRESSED } else { PLAIN };
    Preferred {
        kex: KEX.into(),
        key: key.into(),
        cipher: CIPHERS.into(),
        compression: compression.into(),
        ..Preferred::DEFAULT
    }
}

/// The key type in a known hosts file: one for all RSA signatures.
pub(super) fn key_type(algorithm: &Algorithm) -> &str {
    match algorithm {
        Algorithm::Rsa { .. } => "ssh-rsa",
        other => other.as_str(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host_keys(known: &[&str]) -> Vec<String> {
        let known: Vec<String> = known.iter().map(ToString::to_string).collect();
        preferred(&known, false).key.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn known_types_of_host_keys_are_asked_for_first() {
        assert_eq!(host_keys(&[])[0], "ssh-ed25519");
        assert_eq!(host_keys(&["ssh-rsa"])[..3], ["rsa-sha2-512", "rsa-sha2-256", "ssh-ed25519"]);
        assert_eq!(host_keys(&["ecdsa-sha2-nistp384"])[..2], ["ecdsa-sha2-nistp384", "ssh-ed25519"]);
    }

    #[test]
    fn nothing_with_sha1_or_cbc_is_offered() {
        let offer = preferred(&[], false);
        let names = offer.kex.iter().map(AsRef::as_ref).chain(offer.cipher.iter().map(AsRef::as_ref));
        let names = names.chain(offer.mac.iter().map(AsRef::as_ref)).map(ToOwned::to_owned).chain(host_keys(&[]));
        for name in names {
            assert!(!name.contains("sha1") && !name.contains("cbc") && name != "ssh-rsa", "{name}");
        }
    }

    #[test]
    fn compression_is_first_when_it_is_wanted_and_never_begins_before_the_login() {
        let names =
            |compress| preferred(&[], compress).compression.iter().map(|it| it.as_ref().to_owned()).collect::<Vec<_>>();
        assert_eq!(names(true), ["zlib@openssh.com", "none"]);
        assert_eq!(names(false), ["none", "zlib@openssh.com"]);
    }
}
