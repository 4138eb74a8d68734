//! The cluster's secret file and what derives from it: bearer tokens of agents and API, passwords of Redis users.
//!
//! Each is HMAC-SHA256 over a purpose and the cluster's `role/env/job`, so that a token of one cluster opens no other and the secret
//! itself never travels. Without a secret file nothing is asked, and everything must listen on loopback only.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// Fewest bytes a secret may have: 16 random bytes cannot be guessed.
const MIN_BYTES: usize = 16;

/// A loaded secret, bound to one cluster. Its `Debug` shows nothing of it.
#[derive(Clone)]
pub struct Secret {
    key: Vec<u8>,
    cluster: String,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({})", self.cluster)
    }
}

/// Why a secret file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("cannot read secret file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Others may read it.
    #[error("secret file {path} has mode {mode:04o}: others can read it; run chmod 0600 {path}")]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is too short to be a secret.
    #[error(
        "secret file {path} holds {bytes} bytes: at least {MIN_BYTES} are needed, e.g. from head -c 32 /dev/urandom | base64"
    )]
    Short {
        /// The file.
        path: PathBuf,
        /// Bytes without surrounding blanks.
        bytes: usize,
    },
}

impl Secret {
    /// Loads the secret of `cluster` (`role/env/job`) from a 0600 file; surrounding blanks do not count.
    pub fn load(path: &Path, cluster: &str) -> Result<Secret, Error> {
        let read = |source| Error::Read { path: path.into(), source };
        let mode = std::fs::metadata(path).map_err(read)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(Error::Mode { path: path.into(), mode });
        }
        let text = std::fs::read(path).map_err(read)?;
        let key = text.trim_ascii().to_vec();
        if key.len() < MIN_BYTES {
            return Err(Error::Short { path: path.into(), bytes: key.len() });
        }
        Ok(Secret { key, cluster: cluster.trim_matches('/').to_owned() })
    }

    fn derive(&self, purpose: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        mac.update(self.cluster.as_bytes());
        mac.update(&[0]);
        mac.update(purpose.as_bytes());
        hex::encode(mac.finalize().into_bytes())
    }

    /// Bearer token for an agent's commands.
    pub fn agent_token(&self) -> String {
        self.derive("agent-token")
    }

    /// Bearer token for whatever changes something in the controller's API.
    pub fn api_token(&self) -> String {
        self.derive("api-token")
    }
}

/// A text that only who has the cluster's secret file can read, or make: what may lie in ZooKeeper, and in what is shown, of a password.
///
/// Encrypted, then authenticated, both by HMAC-SHA256 with keys of their own: the stream that is added is HMAC over a random nonce and a counter, the
/// tag HMAC over what the text is for, the nonce and what was encrypted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(String);

/// Why a sealed text cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sealed password cannot be read: it was sealed with another secret file, or for another address")]
pub struct Unreadable;

const NONCE_BYTES: usize = 16;
const TAG_BYTES: usize = 32;

impl Secret {
    /// Seals a text for one purpose.
    pub fn seal(&self, purpose: &str, text: &str) -> Sealed {
        let mut bytes = uuid::Uuid::new_v4().as_bytes().to_vec();
        bytes.extend_from_slice(text.as_bytes());
        self.add_stream(&mut bytes);
        let tag = self.tag(purpose, &bytes);
        bytes.extend_from_slice(&tag.finalize().into_bytes());
        Sealed(hex::encode(bytes))
    }

    /// The text of a seal made for the same purpose, with the same secret and for the same cluster.
    pub fn unseal(&self, purpose: &str, sealed: &Sealed) -> Result<String, Unreadable> {
        let mut bytes = hex::decode(&sealed.0).map_err(|_| Unreadable)?;
        let body = bytes.len().checked_sub(TAG_BYTES).filter(|body| *body >= NONCE_BYTES).ok_or(Unreadable)?;
        let tag = bytes.split_off(body);
        self.tag(purpose, &bytes).verify_slice(&tag).map_err(|_| Unreadable)?;
        self.add_stream(&mut bytes);
        String::from_utf8(bytes.split_off(NONCE_BYTES)).map_err(|_| Unreadable)
    }

    fn mac(&self, purpose: &str) -> Hmac<Sha256> {
        Hmac::<Sha256>::new_from_slice(self.derive(purpose).as_bytes()).expect("HMAC takes keys of any length")
    }

    fn tag(&self, purpose: &str, bytes: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.mac("seal-tag");
        mac.update(&(purpose.len() as u64).to_be_bytes());
        mac.update(purpose.as_bytes());
        mac.update(bytes);
        mac
    }

    /// Encrypts what follows the nonce, or decrypts it.
    fn add_stream(&self, bytes: &mut [u8]) {
        let (nonce, text) = bytes.split_at_mut(NONCE_BYTES);
        for (counter, block) in text.chunks_mut(TAG_BYTES).enumerate() {
            let mut mac = self.mac("seal-stream");
            mac.update(nonce);
            mac.update(&(counter as u64).to_be_bytes());
            block.iter_mut().zip(mac.finalize().into_bytes()).for_each(|(byte, mask)| *byte ^= mask);
        }
    }
}

/// Password that both ends derive from `purpose`. Without a secret file anybody can, for which everything must be on loopback.
pub fn derive_or_open(secret: Option<&Secret>, cluster: &str, purpose: &str) -> String {
    match secret {
        Some(secret) => secret.derive(purpose),
        None => Secret { key: b"no secret file".to_vec(), cluster: cluster.to_owned() }.derive(purpose),
    }
}

/// As Redis keeps passwords.
pub(crate) fn sha256_hex(password: &str) -> String {
    hex::encode(<Sha256 as sha2::Digest>::digest(password))
}

/// Whether an `Authorization` header carries `token`; takes the same time wherever they differ. With no token asked, always.
pub fn authorized(header: Option<&str>, token: Option<&str>) -> bool {
    let Some(token) = token else { return true };
    let given = header.and_then(|h| h.strip_prefix("Bearer ")).unwrap_or("").as_bytes();
    let differing = given.iter().zip(token.as_bytes()).fold(0u8, |acc, (a, b)| acc | (a ^ b));
    given.len() == token.len() && differing == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(cluster: &str) -> Secret {
        Secret { key: b"0123456789abcdef".to_vec(), cluster: cluster.into() }
    }

    #[test]
    fn tokens_differ_by_purpose_and_cluster() {
        let (a, b) = (secret("r/e/a"), secret("r/e/b"));
        assert_ne!(a.agent_token(), a.api_token());
        assert_ne!(a.agent_token(), b.agent_token());
        assert_ne!(derive_or_open(Some(&a), "r/e/a", "x"), derive_or_open(Some(&a), "r/e/a", "y"));
        assert_ne!(derive_or_open(Some(&a), "r/e/a", "x"), derive_or_open(None, "r/e/a", "x"));
    }

    #[test]
    fn a_seal_opens_for_the_same_secret_cluster_and_purpose_only() {
        let a = secret("r/e/a");
        for text in ["", "p", "a password of more than thirty-two bytes: ü"] {
            let sealed = a.seal("x", text);
            assert!(!serde_json::to_string(&sealed).unwrap().contains("password"));
            assert_eq!(a.unseal("x", &sealed).as_deref(), Ok(text));
            assert_eq!(a.unseal("y", &sealed), Err(Unreadable));
            assert_eq!(secret("r/e/b").unseal("x", &sealed), Err(Unreadable));
            assert_ne!(a.seal("x", text), sealed, "the same password never looks the same");
            for at in 0..sealed.0.len() {
                let mut spoilt = sealed.0.clone().into_bytes();
                spoilt[at] = if spoilt[at] == b'0' { b'1' } else { b'0' };
                assert_eq!(a.unseal("x", &Sealed(String::from_utf8(spoilt).unwrap())), Err(Unreadable), "digit {at}");
            }
        }
        for wrong in ["", "zz", "00", &"0".repeat(94)] {
            assert_eq!(a.unseal("x", &Sealed(wrong.into())), Err(Unreadable), "{wrong}");
        }
    }

    #[test]
    fn only_the_exact_token_is_authorized() {
        assert!(authorized(None, None));
        assert!(authorized(Some("Bearer abc"), Some("abc")));
        for wrong in [None, Some("abc"), Some("Bearer ab"), Some("Bearer abcd"), Some("bearer abc"), Some("Bearer ")] {
            assert!(!authorized(wrong, Some("abc")), "{wrong:?}");
        }
    }

    #[test]
    fn a_file_others_can_read_is_refused() {
        let dir = std::env::temp_dir().join(format!("secret-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&dir).unwrap();
        let file = dir.join("s");
        std::fs::write(&file, "0123456789abcdef\n").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Secret::load(&file, "r/e/j"), Err(Error::Mode { mode: 0o644, .. })));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        Secret::load(&file, "r/e/j").unwrap();
        std::fs::write(&file, "short").unwrap();
        assert!(matches!(Secret::load(&file, "r/e/j"), Err(Error::Short { bytes: 5, .. })));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
