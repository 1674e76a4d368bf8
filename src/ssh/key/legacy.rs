//! OpenSSL's own encryption of PEM files, from before PKCS#8: `Proc-Type: 4,ENCRYPTED`.

use aes::{
    Aes128, Aes192, Aes256,
    cipher::{BlockCipherDecrypt, BlockModeDecrypt, BlockSizeUser, KeyInit, KeyIvInit, block_padding::Pkcs7},
};
use des::TdesEde3;
use md5::{Digest, Md5};
use zeroize::{Zeroize, Zeroizing};

use super::{error::Fault, pem::Secret};

/// Bytes of the IV that salt the key.
const SALT: usize = 8;

/// Decrypts the body of a block whose `DEK-Info` line names this cipher and IV.
pub(super) fn decrypt(cipher: &str, iv: &[u8], body: &[u8], passphrase: &str) -> Result<Secret, Fault> {
    match cipher {
        "AES-128-CBC" => decrypt_with::<Aes128>(iv, body, passphrase),
        "AES-192-CBC" => decrypt_with::<Aes192>(iv, body, passphrase),
        "AES-256-CBC" => decrypt_with::<Aes256>(iv, body, passphrase),
        "DES-EDE3-CBC" => decrypt_with::<TdesEde3>(iv, body, passphrase),
        other => Err(Fault::Unsupported(format!(
            "it is encrypted with {other:?}; encrypt it anew with: openssl pkcs8 -topk8 -v2 aes256"
        ))),
    }
}

fn decrypt_with<C>(iv: &[u8], body: &[u8], passphrase: &str) -> Result<Secret, Fault>
where
    C: BlockCipherDecrypt + BlockSizeUser + KeyInit,
{
    let damaged = || Fault::Damaged("the length of its IV or of its content does not fit the cipher".to_owned());
    let block = C::block_size();
    let salt = iv.get(..SALT).filter(|_| iv.len() == block).ok_or_else(damaged)?;
    if body.is_empty() || !body.len().is_multiple_of(block) {
        return Err(damaged());
    }
    let key = derive_key(passphrase.as_bytes(), salt, C::key_size());
    let decryptor = cbc::Decryptor::<C>::new_from_slices(&key, iv).map_err(|_| damaged())?;
    let mut plain = Zeroizing::new(body.to_vec());
    let len = decryptor.decrypt_padded::<Pkcs7>(&mut plain).map_err(|_| Fault::WrongPassphrase)?.len();
    plain.truncate(len);
    Ok(plain)
}

/// OpenSSL's `EVP_BytesToKey` with MD5 and one round: each block of the key is the hash of the block before, the passphrase
/// and the salt.
fn derive_key(passphrase: &[u8], salt: &[u8], len: usize) -> Secret {
    let mut key = Zeroizing::new(Vec::with_capacity(len + 16));
    let mut block: Option<md5::digest::Output<Md5>> = None;
    while key.len() < len {
        let mut hash = Md5::new();
        if let Some(block) = &block {
            hash.update(block);
        }
        hash.update(passphrase);
        hash.update(salt);
        key.extend_from_slice(block.insert(hash.finalize()));
    }
    if let Some(block) = &mut block {
        block.as_mut_slice().zeroize();
    }
    key.truncate(len);
    key
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    #[test]
    fn keys_are_derived_as_openssl_derives_them() {
        // `openssl enc -aes-256-cbc -md md5 -pass pass:secret -S 0102030405060708 -P`
        let key = derive_key(b"secret", &[1, 2, 3, 4, 5, 6, 7, 8], 32);
        assert_eq!(HEXLOWER.encode(&key), include_str!("../../../tests/vectors/keys/evp_bytes_to_key.hex").trim());
    }

    #[test]
    fn what_does_not_fit_the_cipher_is_refused() {
        let body = [0; 32];
        assert!(matches!(decrypt("AES-128-CBC", &[0; 8], &body, "x"), Err(Fault::Damaged(_))));
        assert!(matches!(decrypt("DES-EDE3-CBC", &[0; 16], &body, "x"), Err(Fault::Damaged(_))));
        assert!(matches!(decrypt("AES-256-CBC", &[0; 16], &body[..31], "x"), Err(Fault::Damaged(_))));
        assert!(matches!(decrypt("AES-256-CBC", &[], &[], "x"), Err(Fault::Damaged(_))));
        assert!(matches!(decrypt("CAMELLIA-256-CBC", &[0; 16], &body, "x"), Err(Fault::Unsupported(_))));
    }
}
