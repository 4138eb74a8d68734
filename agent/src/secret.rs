//! The cluster's secret file and what derives from it: bearer tokens of agents and API, passwords of Redis users.
//!
//! Each is HMAC-SHA256 over a purpose and the cluster's `role/env/job`, so that a token of one cluster opens no other and the secret
//! itself never travels. Without a secret file nothing is asked, and everything must listen on loopback only.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use hmac::{Hmac, Mac};
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
