//! From a container to a key.

use data_encoding::BASE64;
use pkcs8::EncryptedPrivateKeyInfoRef;
use russh::keys::{self, Algorithm, PrivateKey, PublicKey, ssh_key};
use zeroize::Zeroizing;

use super::{
    error::Fault,
    legacy,
    pem::{Container, LegacyKind, Secret, openssh_cipher},
};

/// Decrypts, decodes, and makes sure that the key is of a type that can log in.
pub(super) fn decode(container: &Container, passphrase: Option<&str>) -> Result<PrivateKey, Fault> {
    let passphrase = match passphrase {
        None if container.is_encrypted() => return Err(Fault::PassphraseNeeded),
        given => given.unwrap_or_default(),
    };
    let key = match container {
        Container::OpenSsh(body) => openssh(body, passphrase)?,
        Container::Pkcs1(body) => pkcs1(body).map_err(content_fault)?,
        Container::Sec1(body) | Container::Pkcs8(body) => {
            keys::pkcs8::decode_pkcs8(body, None).map_err(content_fault)?
        }
        Container::EncryptedPkcs8(body) => encrypted_pkcs8(body, passphrase)?,
        Container::Legacy { of, cipher, iv, body } => {
            let plain = legacy::decrypt(cipher, iv, body, passphrase)?;
            // One wrong passphrase in 256 leaves something that looks padded.
            inside_legacy(*of, &plain).map_err(|_| Fault::WrongPassphrase)?
        }
        Container::Ppk(text) => ppk(text, container.is_encrypted().then_some(passphrase))?,
    };
    supported(key)
}

/// What can be told without a passphrase.
pub(super) fn public_half(container: &Container) -> Option<PublicKey> {
    let key = match container {
        Container::OpenSsh(body) => PrivateKey::from_bytes(body).ok(),
        _ => decode(container, None).ok(),
    };
    Some(key?.public_key().clone())
}

fn supported(key: PrivateKey) -> Result<PrivateKey, Fault> {
    match key.algorithm() {
        Algorithm::Ed25519 | Algorithm::Ecdsa { .. } | Algorithm::Rsa { .. } => Ok(key),
        other => Err(unsupported_type(&other)),
    }
}

fn unsupported_type(algorithm: &Algorithm) -> Fault {
    let why = match algorithm {
        Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256 => "its secret is in a hardware token, and tokens",
        _ => "keys of this type",
    };
    Fault::Unsupported(format!("its type is {algorithm}; {why} are not supported"))
}

fn openssh(body: &[u8], passphrase: &str) -> Result<PrivateKey, Fault> {
    let key = PrivateKey::from_bytes(body).map_err(|error| content_fault(error.into()))?;
    if !key.is_encrypted() {
        return Ok(key);
    }
    if openssh_cipher(body) == Some(b"3des-cbc") {
        let remedy = "it is encrypted with 3des-cbc; encrypt it anew with: ssh-keygen -p -f FILE";
        return Err(Fault::Unsupported(remedy.to_owned()));
    }
    key.decrypt(passphrase).map_err(|error| match error {
        ssh_key::Error::Crypto => Fault::WrongPassphrase,
        error => content_fault(error.into()),
    })
}

/// russh takes PKCS#1 as PEM only.
fn pkcs1(der: &[u8]) -> Result<PrivateKey, keys::Error> {
    const LABEL: &str = "RSA PRIVATE KEY-----\n";
    let mut pem = Zeroizing::new(String::with_capacity(der.len().div_ceil(3) * 4 + 64));
    pem.push_str("-----BEGIN ");
    pem.push_str(LABEL);
    BASE64.encode_append(der, &mut pem);
    pem.push_str("\n-----END ");
    pem.push_str(LABEL);
    keys::decode_secret_key(&pem, None)
}

fn inside_legacy(of: LegacyKind, der: &Secret) -> Result<PrivateKey, keys::Error> {
    match of {
        LegacyKind::Pkcs1 => pkcs1(der),
        LegacyKind::Sec1 => keys::pkcs8::decode_pkcs8(der, None),
    }
}

fn encrypted_pkcs8(der: &[u8], passphrase: &str) -> Result<PrivateKey, Fault> {
    use pkcs8::{Error, pkcs5};

    let outdated = || {
        let remedy = "its encryption is outdated; encrypt it anew with: openssl pkcs8 -topk8 -v2 aes256";
        Fault::Unsupported(remedy.to_owned())
    };
    let plain = EncryptedPrivateKeyInfoRef::try_from(der).map_err(|_| outdated())?.decrypt(passphrase);
    let plain = plain.map_err(|error| match error {
        Error::EncryptedPrivateKey(pkcs5::Error::UnsupportedAlgorithm { .. } | pkcs5::Error::NoPbes1CryptSupport) => {
            outdated()
        }
        _ => Fault::WrongPassphrase,
    })?;
    keys::pkcs8::decode_pkcs8(plain.as_bytes(), None).map_err(content_fault)
}

fn ppk(text: &str, passphrase: Option<&str>) -> Result<PrivateKey, Fault> {
    keys::decode_secret_key(text, passphrase).map_err(|error| match content_fault(error) {
        Fault::Damaged(_) if passphrase.is_some() => Fault::WrongPassphrase,
        fault => fault,
    })
}

fn content_fault(error: keys::Error) -> Fault {
    match error {
        keys::Error::SshKey(ssh_key::Error::AlgorithmUnsupported { algorithm }) => unsupported_type(&algorithm),
        keys::Error::SshKey(ssh_key::Error::AlgorithmUnknown) | keys::Error::UnknownAlgorithm(_) => {
            Fault::Unsupported("keys of its type are not supported; use Ed25519, ECDSA or RSA".to_owned())
        }
        error => Fault::Damaged(error.to_string()),
    }
}
