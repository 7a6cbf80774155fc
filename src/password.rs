//! Passwords (argon2id, RFC 9106) and secrets that are handed out.

use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};

/// The shortest password that is taken.
pub const SHORTEST: usize = 12;

/// The PHC string of a password, with a salt of its own: 19 MiB and two passes, as OWASP recommends. Takes some 50 ms on purpose.
pub fn hash(password: &str) -> String {
    let salt: [u8; 16] = rand::random();
    let salt = SaltString::encode_b64(&salt).expect("16 bytes are a salt");
    let hash = Argon2::default().hash_password(password.as_bytes(), &salt);
    hash.expect("the default parameters are valid, and a password is shorter than 4 GiB").to_string()
}

/// Whether a password is the one of a hash. A hash that cannot be read is nobody's.
pub fn verify(password: &str, hash: &str) -> bool {
    PasswordHash::new(hash).is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

/// A secret of 256 bits in hexadecimal.
pub fn token() -> String {
    hex::encode(rand::random::<[u8; 32]>())
}

/// A password of 100 bits for people to type: five groups of four of letters and digits that look like no other.
pub fn generate() -> String {
    const LETTERS: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz23456789_";
    let bytes: [u8; 20] = rand::random();
    let letters: Vec<String> = bytes
        .chunks(4)
        .map(|four| four.iter().map(|byte| char::from(LETTERS[usize::from(byte % 31)])).collect())
        .collect();
    letters.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_recognized_and_no_hash_is_like_another() {
        let (first, second) = (hash("correct horse battery"), hash("correct horse battery"));
        assert_ne!(first, second);
        assert!(first.starts_with("$argon2id$"));
        assert!(verify("correct horse battery", &first) && verify("correct horse battery", &second));
        assert!(!verify("correct horse", &first));
        assert!(!verify("", "") && !verify("x", "not a hash"));
    }

    #[test]
    fn what_is_generated_is_long_and_new() {
        assert_eq!(generate().len(), 24);
        assert_ne!(generate(), generate());
        assert_eq!(token().len(), 64);
        assert!(generate().len() >= SHORTEST);
    }
}
